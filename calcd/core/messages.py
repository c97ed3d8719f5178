"""The words of errors and help, in the languages that a session can choose. No I/O."""

from collections.abc import Mapping
from typing import NamedTuple


class Language(NamedTuple):
    """A language, by its code of ISO 639-1, and its words by those in English."""

    name: str
    words: Mapping[str, str]

    def say(self, words: str) -> str:
        """Translate words, or a template of such; those it does not know stay."""
        return self.words.get(words, words)


_PORTUGUESE = {
    # errors
    "{} is no operation: HELP lists them": "{} não é uma operação: HELP mostra todas",
    "{} is no operation: begin an expression with =, as in: = 2*(3+4)": (
        "{} não é uma operação: comece uma expressão com =, como em: = 2*(3+4)"
    ),
    "{} takes {} operands or more, {} came: {}": ("{} recebe {} operandos ou mais, vieram {}: {}"),
    "{} takes {} to {} operands, {} came: {}": "{} recebe de {} a {} operandos, vieram {}: {}",
    "{} takes {} operand, {} came: {}": "{} recebe {} operando, vieram {}: {}",
    "{} takes {} operands, {} came: {}": "{} recebe {} operandos, vieram {}: {}",
    "{} has a comma: write a point before the decimals, and a blank between operands": (
        "{} tem vírgula: escreva um ponto antes dos decimais, e um espaço entre os operandos"
    ),
    "{} is not a decimal number": "{} não é um número decimal",
    "{} has an exponent out of range": "{} tem um expoente fora dos limites",
    "{} is neither a decimal number nor a variable": "{} não é um número decimal nem uma variável",
    "{} is not a whole number from 1 to {}": "{} não é um número inteiro de 1 a {}",
    "division by zero": "divisão por zero",
    "0 divided by 0 is undefined": "0 dividido por 0 é indefinido",
    "{} has no result of {} digits or less for {}": (
        "{} não tem resultado de {} dígitos ou menos para {}"
    ),
    "the result is too large: numbers end below 1E+{}": (
        "o resultado é grande demais: os números terminam abaixo de 1E+{}"
    ),
    "the exact result does not fit into {} digits": "o resultado exato não cabe em {} dígitos",
    "{} is not UTF-8": "{} não é UTF-8",
    "the reply would read as an error": "a resposta pareceria um erro",
    "{} is none of {}": "{} não é nenhum de {}",
    "{} is no name: a letter, then letters, digits or _, {} at the most": (
        "{} não é um nome: uma letra, depois letras, dígitos ou _, {} no máximo"
    ),
    "{} has a meaning already: assign to another name": (
        "{} já tem um significado: atribua a outro nome"
    ),
    "there are {} names: CLEAR forgets them": "há {} nomes: CLEAR esquece todos",
    "column {}: {} was expected, not the end": "coluna {}: esperava-se {}, não o fim",
    "column {}: {} was expected, not {}": "coluna {}: esperava-se {}, não {}",
    "column {}: {} was expected, not a comma: decimals follow a point": (
        "coluna {}: esperava-se {}, não uma vírgula: os decimais vêm depois de um ponto"
    ),
    "an operator": "um operador",
    "an operator or a parenthesis": "um operador ou um parêntese",
    "a number, a name or a parenthesis": "um número, um nome ou um parêntese",
    "column {}: more than {} parentheses or powers within each other": (
        "coluna {}: mais de {} parênteses ou potências uns dentro dos outros"
    ),
    "column {}: {} is no function: HELP lists them": (
        "coluna {}: {} não é uma função: HELP mostra todas"
    ),
    "column {}: {} is not known: assign to it first": (
        "coluna {}: {} não é conhecido: atribua-lhe um valor primeiro"
    ),
    "there is no answer yet": "ainda não há resposta",
    "this takes too long for one line: ask for fewer digits, or in parts": (
        "isto demora demais para uma linha: peça menos dígitos, ou por partes"
    ),
    "a line has at most {} bytes": "uma linha tem no máximo {} bytes",
    "the line was not finished in time: end it with a newline": (
        "a linha não terminou a tempo: termine-a com uma nova linha"
    ),
    "TLS alone is spoken here": "aqui só se fala TLS",
    "use TCP": "use TCP",
    "a server could take this reply for a request: use TCP": (
        "um servidor poderia tomar esta resposta por um pedido: use TCP"
    ),
    "a fault of the server, which has logged it": "uma falha do servidor, que a registrou",
    # help
    "also": "também",
    "arithmetic": "aritmética",
    "text": "texto",
    "session": "sessão",
    "expressions: 2*(3+4), x = sqrt(2), = x^2; HELP SOMA tells more": (
        "expressões: 2*(3+4), x = raiz(2), = x^2; HELP SOMA diz mais"
    ),
    "no variables": "nenhuma variável",
    "augend": "parcela",
    "addend": "parcela",
    "[addend...]": "[parcela...]",
    "minuend": "minuendo",
    "subtrahend": "subtraendo",
    "multiplicand": "multiplicando",
    "multiplier": "multiplicador",
    "[multiplier...]": "[multiplicador...]",
    "dividend": "dividendo",
    "divisor": "divisor",
    "base": "base",
    "exponent": "expoente",
    "number": "número",
    "[number...]": "[número...]",
    "places": "casas",
    "text...": "texto...",
    "[digits]": "[dígitos]",
    "[mode]": "[modo]",
    "[on|off]": "[on|off]",
    "[en|pt]": "[en|pt]",
    "[operation]": "[operação]",
    "the sum of the numbers": "a soma dos números",
    "the first number less the second": "o primeiro número menos o segundo",
    "the product of the numbers": "o produto dos números",
    "the first number divided by the second": "o primeiro número dividido pelo segundo",
    "the first number to the power of the second": "o primeiro número elevado ao segundo",
    "the square root": "a raiz quadrada",
    "what an integer division leaves, with the sign of the dividend": (
        "o que sobra de uma divisão inteira, com o sinal do dividendo"
    ),
    "the integer part of a division": "a parte inteira de uma divisão",
    "the least of the numbers": "o menor dos números",
    "the greatest of the numbers": "o maior dos números",
    "the number without its sign": "o número sem o sinal",
    "the number with the other sign": "o número com o outro sinal",
    "-1, 0 or 1: less, equal or greater": "-1, 0 ou 1: menor, igual ou maior",
    "the number rounded to so many decimal places": "o número arredondado a tantas casas decimais",
    "e to the power of the number": "e elevado ao número",
    "the natural logarithm": "o logaritmo natural",
    "the logarithm to base 10": "o logaritmo de base 10",
    "the factorial, where it is exact": "o fatorial, onde é exato",
    "the text in upper case": "o texto em maiúsculas",
    "how many digits a result has": "quantos dígitos tem um resultado",
    "how a result is rounded": "como um resultado é arredondado",
    "whether a result that would be rounded is an error": (
        "se um resultado que seria arredondado é um erro"
    ),
    "the language of words": "a língua das palavras",
    "the variables and their values": "as variáveis e seus valores",
    "forget the variables and ANS": "esquece as variáveis e ANS",
    "PONG: a sign of life": "PONG: um sinal de vida",
    "the server's name and version": "o nome e a versão do servidor",
    "the operations, or how one is used": "as operações, ou como uma é usada",
    "BYE, and the end of the session": "BYE, e o fim da sessão",
}

ENGLISH = Language("en", {})
PORTUGUESE = Language(
    # As all text of a session: one character for each byte, and those are of UTF-8.
    "pt",
    {english: words.encode().decode("latin-1") for english, words in _PORTUGUESE.items()},
)
LANGUAGES = {language.name: language for language in (ENGLISH, PORTUGUESE)}

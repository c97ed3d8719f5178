"""Texts of errors and help, in the languages that a session can choose."""

from collections.abc import Mapping
from typing import NamedTuple


class Language(NamedTuple):
    """A language, by its ISO 639-1 code, and its texts by those in English."""

    name: str
    texts: Mapping[str, str]

    def translate(self, text: str) -> str:
        """Return a text or a template in this language; an unknown one stays as it is."""
        return self.texts.get(text, text)


_PORTUGUESE = {
    # errors
    "unknown operation {}: HELP lists them": "operação desconhecida {}: HELP lista todas",
    "unknown operation {}: begin an expression with =, as in: = 2*(3+4)": (
        "operação desconhecida {}: comece a expressão com =, por exemplo: = 2*(3+4)"
    ),
    "{} needs at least {} {}, got {}: {}": "{} precisa de pelo menos {} {}, recebeu {}: {}",
    "{} needs {} {}, got {}: {}": "{} precisa de {} {}, recebeu {}: {}",
    "{} takes at most {} {}, got {}: {}": "{} aceita no máximo {} {}, recebeu {}: {}",
    "{} takes no operands, got {}: {}": "{} não aceita operandos, recebeu {}: {}",
    "operand": "operando",
    "operands": "operandos",
    "{} has a comma: use a point before decimals, and a space between operands": (
        "{} tem vírgula: use ponto antes das casas decimais e espaço entre os operandos"
    ),
    "{} is not a decimal number": "{} não é um número decimal",
    "{} has an exponent out of range": "{} tem um expoente fora dos limites",
    "{} is not an integer from 1 to {}": "{} não é um número inteiro de 1 a {}",
    "division by zero": "divisão por zero",
    "0 divided by 0 is undefined": "0 dividido por 0 é indefinido",
    "{} has no result of {} digits or fewer for {}": (
        "{} não tem resultado de até {} dígitos para {}"
    ),
    "the result is too large: it must be below 1E+{}": (
        "o resultado é grande demais: deve ser menor que 1E+{}"
    ),
    "the exact result does not fit in {} digits": "o resultado exato não cabe em {} dígitos",
    "{} is not UTF-8": "{} não está em UTF-8",
    "the reply would look like an error": "a resposta pareceria um erro",
    "{} is not one of {}": "{} não é uma destas opções: {}",
    "invalid name {}: use a letter, then letters, digits or _, at most {} characters": (
        "nome inválido {}: use uma letra, depois letras, dígitos ou _, até {} caracteres"
    ),
    "{} is a reserved name: choose another": "{} é um nome reservado: escolha outro",
    "there are already {} variables: CLEAR removes them": (
        "já existem {} variáveis: CLEAR apaga todas"
    ),
    "column {}: expected {}, got end of line": ("coluna {}: esperava-se {}, mas a linha acabou"),
    "column {}: expected {}, got {}": "coluna {}: esperava-se {}, não {}",
    "column {}: expected {}, got a comma: use a point before decimals": (
        "coluna {}: esperava-se {}, não uma vírgula: use ponto antes das casas decimais"
    ),
    "an operator": "um operador",
    "an operator or a parenthesis": "um operador ou um parêntese",
    "a number, a name or a parenthesis": "um número, um nome ou um parêntese",
    "column {}: more than {} nested parentheses or powers": (
        "coluna {}: mais de {} níveis de parênteses ou potências"
    ),
    "column {}: unknown function {}: HELP lists them": (
        "coluna {}: função desconhecida {}: HELP lista todas"
    ),
    "column {}: unknown variable {}: assign a value first": (
        "coluna {}: variável desconhecida {}: atribua um valor primeiro"
    ),
    "ANS has no value yet": "ANS ainda não tem valor",
    "the request takes more than {} s of CPU time: use fewer digits, or split it": (
        "o pedido gasta mais de {} s de tempo de CPU: use menos dígitos ou divida-o em partes"
    ),
    "the request takes too much memory: split it": (
        "o pedido gasta memória demais: divida-o em partes"
    ),
    "the process that worked on it was ended: ask again": (
        "o processo que o calculava foi encerrado: tente de novo"
    ),
    "the server cannot take this expensive request now: ask again later": (
        "o servidor não pode atender este pedido demorado agora: tente de novo mais tarde"
    ),
    "a line has at most {} bytes": "uma linha tem no máximo {} bytes",
    "the line was not completed in time: end it with a newline": (
        "a linha não foi concluída a tempo: termine-a com uma quebra de linha"
    ),
    "this endpoint accepts only TLS": "este endereço só aceita TLS",
    "this is not an HTTP server": "este não é um servidor HTTP",
    "a PROXY header is not accepted here": "este endereço não aceita cabeçalhos PROXY",
    "use TCP": "use TCP",
    "this reply could be taken for a request: use TCP": (
        "esta resposta poderia ser tomada por um pedido: use TCP"
    ),
    "internal error: the server's log has the details": (
        "erro interno: o log do servidor tem os detalhes"
    ),
    # help
    "also": "também",
    "arithmetic": "aritmética",
    "text": "texto",
    "session": "sessão",
    "expressions: 2*(3+4), x = sqrt(2), = x^2; HELP SOMA shows details": (
        "expressões: 2*(3+4), x = raiz(2), = x^2; HELP SOMA mostra detalhes"
    ),
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
    "the first number minus the second": "o primeiro número menos o segundo",
    "the product of the numbers": "o produto dos números",
    "the first number divided by the second": "o primeiro número dividido pelo segundo",
    "the first number to the power of the second": "o primeiro número elevado ao segundo",
    "the square root": "a raiz quadrada",
    "the remainder of an integer division, with the sign of the dividend": (
        "o resto da divisão inteira, com o sinal do dividendo"
    ),
    "the integer part of a division": "a parte inteira da divisão",
    "the smallest of the numbers": "o menor dos números",
    "the largest of the numbers": "o maior dos números",
    "the number without its sign": "o número sem o sinal",
    "the number with the opposite sign": "o número com o sinal trocado",
    "-1, 0 or 1: less, equal or greater": "-1, 0 ou 1: menor, igual ou maior",
    "the number rounded to that many decimal places": (
        "o número arredondado a esse número de casas decimais"
    ),
    "e to the power of the number": "e elevado ao número",
    "the natural logarithm": "o logaritmo natural",
    "the logarithm to base 10": "o logaritmo de base 10",
    "the factorial, if it is exact": "o fatorial, se for exato",
    "the text in upper case": "o texto em maiúsculas",
    "show or set the precision, in digits": "mostra ou define a precisão, em dígitos",
    "show or set the rounding mode": "mostra ou define o modo de arredondamento",
    "show or set whether rounding is an error": ("mostra ou define se arredondar é um erro"),
    "show or set the language of errors and help": "mostra ou define o idioma de erros e ajuda",
    "list the variables and their values": "lista as variáveis e os seus valores",
    "no variables": "nenhuma variável",
    "remove the variables and ANS": "apaga as variáveis e ANS",
    "check that the server answers": "verifica se o servidor responde",
    "PING: check that the server answers; PING -> PONG": (
        "PING: verifica se o servidor responde; PING -> PONG"
    ),
    "the server's name and version": "o nome e a versão do servidor",
    "list the operations, or show how to use one": "lista as operações, ou mostra como usar uma",
    "reply BYE and end the session": "responde BYE e encerra a sessão",
}

ENGLISH = Language("en", {})
PORTUGUESE = Language(
    # Like all text of a session, one character for each byte of UTF-8.
    "pt",
    {english: text.encode().decode("latin-1") for english, text in _PORTUGUESE.items()},
)
LANGUAGES = {language.name: language for language in (ENGLISH, PORTUGUESE)}

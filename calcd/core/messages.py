"""Texts of errors and help, in the languages that a session can choose."""

import re
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
    "unknown operation {}: see HELP": "operação desconhecida {}: veja AJUDA",
    "unknown operation {}: did you mean {}?": "operação desconhecida {}: quis dizer {}?",
    "unknown operation or variable {}: see HELP": (
        "operação ou variável desconhecida {}: veja AJUDA"
    ),
    "unknown operation or topic {}: HELP lists topics": (
        "operação ou tema desconhecido {}: AJUDA lista os temas"
    ),
    "unknown operation or topic {}: did you mean {}? HELP lists topics": (
        "operação ou tema desconhecido {}: quis dizer {}? AJUDA lista os temas"
    ),
    "{} needs at least {} {}, got {}: {} {}": "{} precisa de pelo menos {} {}, recebeu {}: {} {}",
    "{} needs {} {}, got {}: {} {}": "{} precisa de {} {}, recebeu {}: {} {}",
    "{} takes at most {} {}, got {}: {} {}": "{} aceita no máximo {} {}, recebeu {}: {} {}",
    "{} takes no operands, got {}: {}": "{} não aceita operandos, recebeu {}: {}",
    "operand": "operando",
    "operands": "operandos",
    "{} has a comma: use a point before decimals, and a space between operands": (
        "{} tem vírgula: use ponto antes das casas decimais e espaço entre os operandos"
    ),
    "{} is a percentage: write it as a decimal number, such as 0.10 for 10%": (
        "{} está em percentagem: escreva um número decimal, como 0.10 para 10%"
    ),
    "{} is not decimal: hexadecimal, octal and binary numbers are not accepted": (
        "{} não é decimal: não se aceitam números hexadecimais, octais nem binários"
    ),
    "{} has separators: write digits without separators": (
        "{} tem separadores: escreva os algarismos sem separadores"
    ),
    "{} is not a finite number": "{} não é um número finito",
    "{} is neither a number nor a variable": "{} não é um número nem uma variável",
    "{} is not a decimal number": "{} não é um número decimal",
    "{} has an exponent out of range": "{} tem um expoente fora dos limites",
    "{} is not an integer from 1 to {}": "{} não é um número inteiro de 1 a {}",
    "division by zero": "divisão por zero",
    "0 divided by 0 is undefined": "0 dividido por 0 é indefinido",
    "0 to the power 0 is undefined": "0 elevado a 0 é indefinido",
    "a negative number to a power that is not whole": (
        "potência de número negativo com expoente não inteiro"
    ),
    "square root of a negative number": "raiz quadrada de um número negativo",
    "an even root of a negative number": "raiz par de um número negativo",
    "the root's degree must be a whole number other than 0": (
        "o índice da raiz deve ser um número inteiro diferente de 0"
    ),
    "logarithm of zero": "logaritmo de zero",
    "logarithm of a negative number": "logaritmo de um número negativo",
    "the base of a logarithm must be positive": "a base de um logaritmo deve ser positiva",
    "the base of a logarithm must not be 1": "a base de um logaritmo não pode ser 1",
    "pi is not known to enough digits for an angle of 1E+{} or more": (
        "pi não é conhecido com dígitos suficientes para um ângulo de 1E+{} ou mais"
    ),
    "the arcsine needs a number from -1 to 1": "o arco-seno precisa de um número de -1 a 1",
    "the arccosine needs a number from -1 to 1": "o arco-cosseno precisa de um número de -1 a 1",
    "the factorial needs a whole number that is not negative": (
        "o fatorial precisa de um número inteiro não negativo"
    ),
    "the greatest common divisor needs whole numbers": (
        "o máximo divisor comum precisa de números inteiros"
    ),
    "the least common multiple needs whole numbers": (
        "o mínimo múltiplo comum precisa de números inteiros"
    ),
    "the operands must be whole numbers that are not negative": (
        "os operandos devem ser números inteiros não negativos"
    ),
    "places must be a whole number": "o número de casas deve ser inteiro",
    "places must be between {} and {}": "o número de casas deve estar entre {} e {}",
    "the quotient needs more than {} digits": "o quociente precisa de mais de {} dígitos",
    "the result needs more than {} digits": "o resultado precisa de mais de {} dígitos",
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
    "{} is a reserved name: to set it, write {}": (
        "{} é um nome reservado: para defini-lo, escreva {}"
    ),
    "there are already {} variables: CLEAR removes them": (
        "já existem {} variáveis: LIMPAR apaga todas"
    ),
    "column {}: expected {}, got end of line": ("coluna {}: esperava-se {}, mas a linha acabou"),
    "column {}: expected {}, got {}": "coluna {}: esperava-se {}, não {}",
    "column {}: expected {}, got a comma: write 1000.50, not 1,000.50": (
        "coluna {}: esperava-se {}, não uma vírgula: escreva 1000.50, não 1.000,50"
    ),
    "column {}: expected {}, got {}: a function has parentheses, as in max(1, 2)": (
        "coluna {}: esperava-se {}, não {}: uma função leva parênteses, como em max(1, 2)"
    ),
    "column {}: expected {}, got {}: two numbers need an operator between them": (
        "coluna {}: esperava-se {}, não {}: entre dois números é preciso um operador"
    ),
    "column {}: expected {}, got {}: write * to multiply": (
        "coluna {}: esperava-se {}, não {}: escreva * para multiplicar"
    ),
    "column {}: expected {}, got {}: write digits without separators": (
        "coluna {}: esperava-se {}, não {}: escreva os algarismos sem separadores"
    ),
    "column {}: expected {}, got {}: write numbers in decimal": (
        "coluna {}: esperava-se {}, não {}: escreva os números em decimal"
    ),
    "column {}: only NAME = EXPRESSION has more after =": (
        "coluna {}: só em NOME = EXPRESSÃO há algo depois de ="
    ),
    "column {}: % is the remainder of a division: write 0.10 for 10%; a negative divisor needs "
    "parentheses": (
        "coluna {}: % é o resto de uma divisão: em vez de 10% escreva 0.10; um divisor negativo "
        "leva parênteses"
    ),
    "an operator": "um operador",
    "an operator or a parenthesis": "um operador ou um parêntese",
    "a number, a name or a parenthesis": "um número, um nome ou um parêntese",
    "column {}: more than {} nested parentheses or powers": (
        "coluna {}: mais de {} níveis de parênteses ou potências"
    ),
    "column {}: unknown function {}: see HELP, or write * to multiply": (
        "coluna {}: função desconhecida {}: veja AJUDA, ou escreva * para multiplicar"
    ),
    "column {}: unknown function {}: did you mean {}?": (
        "coluna {}: função desconhecida {}: quis dizer {}?"
    ),
    "column {}: {} is an operation: HELP {} shows how it is used": (
        "coluna {}: {} é uma operação: AJUDA {} mostra como se usa"
    ),
    "column {}: unknown variable {}: names have the letters a to z, without accents": (
        "coluna {}: variável desconhecida {}: os nomes têm letras de a a z, sem acentos"
    ),
    "column {}: unknown variable {}: did you mean {}?": (
        "coluna {}: variável desconhecida {}: quis dizer {}?"
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
        "o processo que calculava este pedido foi encerrado: tente de novo"
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
    "a connection from this proxy must begin with a PROXY header": (
        "uma conexão deste proxy deve começar por um cabeçalho PROXY"
    ),
    "the PROXY header was not completed in time": "o cabeçalho PROXY não foi concluído a tempo",
    "the PROXY header is not valid: {}": "o cabeçalho PROXY não é válido: {}",
    "its line must be PROXY, TCP4 or TCP6, two addresses, two ports, and CR LF within 107 bytes": (
        "sua linha deve ser PROXY, TCP4 ou TCP6, dois endereços, duas portas e CR LF em até 107 "
        "bytes"
    ),
    "its version must be 2, its command LOCAL or PROXY": (
        "sua versão deve ser 2, e seu comando, LOCAL ou PROXY"
    ),
    "its address family or transport is unknown": (
        "sua família de endereços ou seu transporte é desconhecido"
    ),
    "its client sends datagrams": "seu cliente envia datagramas",
    "it is longer than 4096 bytes": "tem mais de 4096 bytes",
    "its length has no room for what is in it": "seu comprimento não basta para o que contém",
    "its CRC32C checksum is wrong": "sua soma de verificação CRC32C está errada",
    "the input ends before it is complete": "a entrada acaba antes de ele estar completo",
    "use TCP": "use TCP",
    "this reply could be taken for a request: use TCP": (
        "esta resposta poderia ser tomada por um pedido: use TCP"
    ),
    "internal error: the server's log has the details": (
        "erro interno: o log do servidor tem os detalhes"
    ),
    "clients from {} may not connect here": "clientes de {} não podem conectar-se aqui",
    "{} connections are open, the server's limit": (
        "{} conexões estão abertas, o limite do servidor"
    ),
    "{} connections are open from {}, its limit": "{} conexões estão abertas {}, o seu limite",
    "your address": "do seu endereço",
    "your /64 network": "da sua rede /64",
    "the server's machine has no thread left": "a máquina do servidor não tem mais threads",
    "the server cannot start: ask again later": (
        "o servidor não consegue iniciar: pergunte de novo mais tarde"
    ),
    # operations that errors suggest
    "ADD": "SOMA",
    "POW": "POT",
    "SQRT": "RAIZ",
    "SIN": "SEN",
    "ASIN": "ASEN",
    "CEIL": "TETO",
    "MEAN": "MEDIA",
    "FACT": "FAT",
    "QUIT": "SAIR",
    # help
    "HELP": "AJUDA",
    "also": "também",
    "arithmetic": "aritmética",
    "functions": "funções",
    "lists": "listas",
    "digits": "dígitos",
    "expressions": "expressões",
    "settings": "ajustes",
    "session": "sessão",
    "text": "texto",
    "2*(3+4), x = 5, x^2, ans*2, 5!, 7 mod 3, sqrt(2), max(1, 2), pi, e": (
        "2*(3+4), x = 5, x^2, ans*2, 5!, 7 mod 3, raiz(2), max(1, 2), pi, e"
    ),
    "minuend": "minuendo",
    "subtrahend": "subtraendo",
    "dividend": "dividendo",
    "divisor": "divisor",
    "base": "base",
    "[base]": "[base]",
    "exponent": "expoente",
    "degree": "índice",
    "angle": "ângulo",
    "sine": "seno",
    "cosine": "cosseno",
    "tangent": "tangente",
    "number": "número",
    "[number...]": "[número...]",
    "[places]": "[casas]",
    "n": "n",
    "k": "k",
    "text...": "texto...",
    "[digits]": "[dígitos]",
    "[topic]": "[tema]",
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
    "the number rounded down, to a whole number or to that many decimal places": (
        "o número arredondado para baixo, a um inteiro ou a esse número de casas decimais"
    ),
    "the number rounded up, to a whole number or to that many decimal places": (
        "o número arredondado para cima, a um inteiro ou a esse número de casas decimais"
    ),
    "the number without its decimals, or with that many": (
        "o número sem as casas decimais, ou com esse número delas"
    ),
    "the number without zeros at its end": "o número sem zeros no fim",
    "e to the power of the number": "e elevado ao número",
    "the root of that degree": "a raiz com esse índice",
    "the natural logarithm": "o logaritmo natural",
    "the logarithm, to base 10 if no base is given": (
        "o logaritmo, na base 10 se não for dada outra"
    ),
    "the logarithm to base 10": "o logaritmo de base 10",
    "the sine of an angle in radians": "o seno de um ângulo em radianos",
    "the cosine of an angle in radians": "o cosseno de um ângulo em radianos",
    "the tangent of an angle in radians": "a tangente de um ângulo em radianos",
    "the angle with that sine, in radians": "o ângulo com esse seno, em radianos",
    "the angle with that cosine, in radians": "o ângulo com esse cosseno, em radianos",
    "the angle with that tangent, in radians": "o ângulo com essa tangente, em radianos",
    "the mean of the numbers": "a média dos números",
    "the factorial": "o fatorial",
    "the greatest common divisor": "o máximo divisor comum",
    "the least common multiple": "o mínimo múltiplo comum",
    "in how many ways k of n things can be put in order": (
        "de quantas maneiras se podem ordenar k de n objetos"
    ),
    "in how many ways k of n things can be chosen": (
        "de quantas maneiras se podem escolher k de n objetos"
    ),
    "the text in upper case": "o texto em maiúsculas",
    "show or set the precision, in digits": "mostra ou define a precisão, em dígitos",
    "show or set how results are rounded (HELP digits: operations that round)": (
        "mostra ou define como os resultados são arredondados (AJUDA dígitos: operações que "
        "arredondam)"
    ),
    "show or set whether rounding is an error": "mostra ou define se arredondar é um erro",
    "show or set how numbers are written": "mostra ou define como os números são escritos",
    "show or set the language of errors and help": "mostra ou define o idioma de erros e ajuda",
    "list the variables and their values": "lista as variáveis e os seus valores",
    "no variables": "nenhuma variável",
    "remove the variables and ANS": "apaga as variáveis e ANS",
    "check that the server answers": "verifica se o servidor responde",
    "PING: check that the server answers; PING -> PONG": (
        "PING: verifica se o servidor responde; PING -> PONG"
    ),
    "the server's name and version": "o nome e a versão do servidor",
    "what the server has counted since its start": (
        "o que o servidor contou desde que foi iniciado"
    ),
    "list the topics, or explain a topic or an operation": (
        "lista os temas, ou explica um tema ou uma operação"
    ),
    "reply BYE and end the session": "responde BYE e encerra a sessão",
}

ENGLISH = Language("en", {})
PORTUGUESE = Language("pt", _PORTUGUESE)
LANGUAGES = {language.name: language for language in (ENGLISH, PORTUGUESE)}


def language_called(name: str) -> Language | None:
    """Return the language of a tag (RFC 5646) or locale, such as pt, pt-BR or pt_PT; else None."""
    primary, *_ = re.split("[-_.@]", name, maxsplit=1)
    return LANGUAGES.get(primary.lower())

"""Context-free grammars, each in Lark's notation and in EBNF, with texts that match and texts that do not."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from bench import masks, vocabularies
from bench.rivals import prepared


@dataclass(frozen=True)
class Case:
    """One language."""

    name: str
    lark: str
    ebnf: str
    valid: tuple[str, ...]
    invalid: tuple[str, ...]

    def renamed(self, turn: int) -> Case:
        """The same grammar as a text nobody has seen."""
        return Case(self.name, f"// {turn}\n{self.lark}", f"# {turn}\n{self.ebnf}", self.valid, self.invalid)


@functools.cache
def warm(engine) -> None:
    """Lets an engine do what it does once for a vocabulary."""
    fill, _, _ = engine.start(engine.compile_cfg(Case("one", 'start: "a"', 'root ::= "a"', (), ())))
    fill()


@functools.cache
def judged(contestant, vocabulary: str) -> int:
    """How many texts, valid ones and others, an engine judges as it should."""
    engine = prepared(contestant, "mask_cfg", vocabularies.load(vocabulary))
    files = vocabularies.load(vocabulary)
    right = 0
    for case in CASES:
        compiled = engine.compile_cfg(case)
        for verdict, texts in ((True, case.valid), (False, case.invalid)):
            for text in texts:
                fill, accept, row = engine.start(compiled)
                fits = all(masks._step(fill, accept, row, i) for i in masks.ids(vocabulary, text))
                fill()
                right += (fits and masks.allows(row, files.special[files.eos])) == verdict
    return right


CASES = (
    Case(
        'JSON',
        lark=r"""start: value
value: object | array | STRING | NUMBER | "true" | "false" | "null"
object: "{" (pair ("," pair)*)? "}"
pair: STRING ":" value
array: "[" (value ("," value)*)? "]"
STRING: /"([^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u[0-9a-fA-F]{4})*"/
NUMBER: /-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/
WS: /[ \t\n\r]+/
%ignore WS
""",
        ebnf=r"""root ::= ws value ws
value ::= object | array | string | number | "true" | "false" | "null"
object ::= "{" ws (pair (ws "," ws pair)*)? ws "}"
pair ::= string ws ":" ws value
array ::= "[" ws (value (ws "," ws value)*)? ws "]"
string ::= "\"" ([^"\\\x00-\x1f] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4}))* "\""
number ::= "-"? ("0" | [1-9] [0-9]*) ("." [0-9]+)? ([eE] [+-]? [0-9]+)?
ws ::= [ \t\n\r]*
""",
        valid=(
            '{"name": "Ada Lovelace", "tags": ["math", "engine", "\\u00e9"], "n": -12.5e+3, "ok": true, "none": null, "o": {"x": [[], {}]}}',
            '[\n  {"id": 1, "text": "The quick brown fox jumps over the lazy dog, twice."},\n  {"id": 2, "text": "日本語 text"}\n]',
        ),
        invalid=(
            '{"a": 01}',
            '{"a" 1}',
            '[1, 2,]',
            '{"a": tru}',
            '"abc',
            '{"a": "\\x"}',
        ),
    ),
    Case(
        'arithmetic',
        lark=r"""start: expr
expr: term (("+"|"-") term)*
term: factor (("*"|"/"|"%") factor)*
factor: "-" factor | atom ("**" factor)?
atom: NUMBER | NAME | NAME "(" expr ("," expr)* ")" | "(" expr ")"
NAME: /[a-z_][a-z0-9_]*/
NUMBER: /[0-9]+(\.[0-9]+)?/
WS: /[ ]+/
%ignore WS
""",
        ebnf=r"""root ::= ws expr
expr ::= term (("+" | "-") ws term)*
term ::= factor (("*" | "/" | "%") ws factor)*
factor ::= "-" ws factor | atom ("**" ws factor)?
atom ::= number | name | name "(" ws expr ("," ws expr)* ")" ws | "(" ws expr ")" ws
name ::= [a-z_] [a-z0-9_]* ws
number ::= [0-9]+ ("." [0-9]+)? ws
ws ::= " "*
""",
        valid=(
            '(a + b) * 3.14 - max(x, y ** 2, -z) / ((1 + 2) % 7)',
            '1 + 2 * 3 - sqrt(alpha_1 * beta_2) ** -2',
        ),
        invalid=(
            '1 + ',
            '(1 + 2',
            'a b',
            '1 +* 2',
            'f(,1)',
            '3..14',
        ),
    ),
    Case(
        'SQL',
        lark=r"""start: select ";"?
select: "SELECT" ("DISTINCT")? cols "FROM" table (join)* (where)? (group)? (order)? (limit)?
cols: "*" | col ("," col)*
col: expr ("AS" NAME)?
table: NAME ("AS" NAME)? | "(" select ")" "AS" NAME
join: ("LEFT"|"INNER")? "JOIN" table "ON" cond
where: "WHERE" cond
group: "GROUP" "BY" expr ("," expr)* ("HAVING" cond)?
order: "ORDER" "BY" expr ("ASC"|"DESC")? ("," expr ("ASC"|"DESC")?)*
limit: "LIMIT" INT
cond: andc ("OR" andc)*
andc: notc ("AND" notc)*
notc: "NOT" notc | "(" cond ")" | expr OP expr | expr "IN" "(" (select | expr ("," expr)*) ")" | expr "IS" "NOT"? "NULL" | expr "LIKE" STRING | expr "BETWEEN" expr "AND" expr
expr: mul (("+"|"-") mul)*
mul: prim (("*"|"/") prim)*
prim: NAME ("." NAME)? | FUNC "(" ("*" | expr) ")" | INT | FLOAT | STRING
OP: "=" | "<>" | "<=" | ">=" | "<" | ">"
FUNC: "COUNT" | "SUM" | "AVG" | "MIN" | "MAX"
NAME: /[a-z_][a-z0-9_]*/
INT: /[0-9]+/
FLOAT: /[0-9]+\.[0-9]+/
STRING: /'[^'\n]*'/
WS: /[ \n\t]+/
%ignore WS
""",
        ebnf=r"""root ::= w select (";" w)?
select ::= "SELECT" s ("DISTINCT" s)? cols "FROM" s table join* where? group? order? limit?
cols ::= "*" w | col ("," w col)*
col ::= expr ("AS" s name)?
table ::= name ("AS" s name)? | "(" w select ")" w "AS" s name
join ::= (("LEFT" | "INNER") s)? "JOIN" s table "ON" s cond
where ::= "WHERE" s cond
group ::= "GROUP" s "BY" s expr ("," w expr)* ("HAVING" s cond)?
order ::= "ORDER" s "BY" s expr (("ASC" | "DESC") w)? ("," w expr (("ASC" | "DESC") w)?)*
limit ::= "LIMIT" s int
cond ::= andc ("OR" s andc)*
andc ::= notc ("AND" s notc)*
notc ::= "NOT" s notc | "(" w cond ")" w | expr op expr | expr "IN" w "(" w (select | expr ("," w expr)*) ")" w | expr "IS" s ("NOT" s)? "NULL" w | expr "LIKE" w string | expr "BETWEEN" s expr "AND" s expr
expr ::= mul (("+" | "-") w mul)*
mul ::= prim (("*" | "/") w prim)*
prim ::= name ("." name)? | func "(" w ("*" w | expr) ")" w | int | float | string
op ::= ("=" | "<>" | "<=" | ">=" | "<" | ">") w
func ::= "COUNT" | "SUM" | "AVG" | "MIN" | "MAX"
name ::= [a-z_] [a-z0-9_]* w
int ::= [0-9]+ w
float ::= [0-9]+ "." [0-9]+ w
string ::= "'" [^'\n]* "'" w
w ::= [ \n\t]*
s ::= [ \n\t]*
""",
        valid=(
            "SELECT DISTINCT u.name, COUNT(*) AS n FROM users AS u LEFT JOIN orders AS o ON u.id = o.user_id WHERE o.total >= 19.99 AND (u.city = 'Paris' OR u.city LIKE 'Ber%') GROUP BY u.name HAVING COUNT(*) > 3 ORDER BY n DESC, u.name ASC LIMIT 10;",
            'SELECT * FROM t WHERE a IN (SELECT b FROM s WHERE c IS NOT NULL) AND d BETWEEN 1 AND 5',
        ),
        invalid=(
            'SELECT FROM t',
            'SELECT a FROM t WHERE',
            'SELECT a,, b FROM t',
            'SELECT a FROM t ORDER a',
            'SELECT (a FROM t',
            'SELECT a FROM t WHERE a LIKE b',
        ),
    ),
    Case(
        'Python',
        lark=r"""start: (funcdef | stmt0)+
funcdef: "def " NAME "(" (param (", " param)*)? ")" (" -> " NAME)? ":\n" block1
param: NAME (": " NAME)? ("=" expr)?
block1: stmt1+
block2: stmt2+
block3: stmt3+
stmt0: simple "\n"
stmt1: "    " (simple "\n" | head ":\n" block2)
stmt2: "        " (simple "\n" | head ":\n" block3)
stmt3: "            " simple "\n"
head: "if " expr | "while " expr | "for " NAME " in " expr | "elif " expr | "else"
simple: "return " expr | "pass" | "break" | target (" = " | " += ") expr | call | "assert " expr
target: NAME ("[" expr "]")?
call: NAME ("." NAME)* "(" (expr (", " expr)*)? ")"
expr: conj (" or " conj)*
conj: neg (" and " neg)*
neg: "not " neg | cmp
cmp: sum ((" == " | " != " | " < " | " <= " | " > " | " >= " | " in ") sum)?
sum: prod ((" + " | " - ") prod)*
prod: unary ((" * " | " / " | " % " | " // ") unary)*
unary: "-" unary | atom trailer*
trailer: "." NAME | "(" (expr (", " expr)*)? ")" | "[" expr (":" expr)? "]"
atom: NAME | NUM | STR | "(" expr ")" | "[" (expr (", " expr)*)? "]" | "{" (expr ": " expr (", " expr ": " expr)*)? "}"
NAME: /[a-zA-Z_][a-zA-Z0-9_]*/
NUM: /[0-9]+(\.[0-9]+)?/
STR: /"[^"\n\\]*"|'[^'\n\\]*'/
""",
        ebnf=r"""root ::= (funcdef | stmt0)+
funcdef ::= "def " NAME "(" (param (", " param)*)? ")" (" -> " NAME)? ":\n" block1
param ::= NAME (": " NAME)? ("=" expr)?
block1 ::= stmt1+
block2 ::= stmt2+
block3 ::= stmt3+
stmt0 ::= simple "\n"
stmt1 ::= "    " (simple "\n" | head ":\n" block2)
stmt2 ::= "        " (simple "\n" | head ":\n" block3)
stmt3 ::= "            " simple "\n"
head ::= "if " expr | "while " expr | "for " NAME " in " expr | "elif " expr | "else"
simple ::= "return " expr | "pass" | "break" | target (" = " | " += ") expr | call | "assert " expr
target ::= NAME ("[" expr "]")?
call ::= NAME ("." NAME)* "(" (expr (", " expr)*)? ")"
expr ::= conj (" or " conj)*
conj ::= neg (" and " neg)*
neg ::= "not " neg | cmp
cmp ::= sum ((" == " | " != " | " < " | " <= " | " > " | " >= " | " in ") sum)?
sum ::= prod ((" + " | " - ") prod)*
prod ::= unary ((" * " | " / " | " % " | " // ") unary)*
unary ::= "-" unary | atom trailer*
trailer ::= "." NAME | "(" (expr (", " expr)*)? ")" | "[" expr (":" expr)? "]"
atom ::= NAME | NUM | STR | "(" expr ")" | "[" (expr (", " expr)*)? "]" | "{" (expr ": " expr (", " expr ": " expr)*)? "}"
NAME ::= [a-zA-Z_] [a-zA-Z0-9_]*
NUM ::= [0-9]+ ("." [0-9]+)?
STR ::= "\"" [^"\n\\]* "\"" | "'" [^'\n\\]* "'"
""",
        valid=(
            'def count_even(xs: list, start=0) -> int:\n    total = start\n    for x in xs:\n        if x % 2 == 0 and x > -1:\n            total += 1\n    return total\n',
            'import_ok = True\ndef f(a, b):\n    d = {"k": a, "v": [b, 1.5]}\n    while not (a == b):\n        a += d["v"][0:1].pop(0) * 2\n    print("done", d)\n    return f(a, b)[0].name\n',
        ),
        invalid=(
            'def f(:\n',
            'def f():\nreturn 1\n',
            'x = = 1\n',
            'def f():\n    return 1 +\n',
            'x = [1, 2\n',
            'x = "a\n',
        ),
    ),
)  # fmt: skip
TEXTS = sum(len(case.valid) + len(case.invalid) for case in CASES)

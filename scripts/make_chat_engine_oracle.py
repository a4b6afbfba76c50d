#!/usr/bin/env python3
"""Remakes tests/fixtures/chat/engine.json: what transformers makes of single constructs of a template.

Each entry is a template with the text that transformers renders with it, or null where it raises.
"""

import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

FOLDER = pathlib.Path(__file__).parent.parent / "tests/fixtures/chat"
MESSAGES = [{"role": "user", "content": " Hi\nthere "}, {"role": "assistant", "content": "ho"}]

EXPRESSIONS = """none|list
none|join(',')
none|first
none|last
none|sort
none|sum
none|unique|list
none|map('upper')|list
none|select|list
none|selectattr('a')|list
none|reverse
none|batch(2)|list
none|slice(2)|list
none|max
none|min
none|groupby('a')
none|length
none|items|list
none|dictsort
none|trim
none|upper
none|replace('N','x')
none|string
none|title
none ~ 'x'
'x' in none
foo|length
foo|list
foo|join(',')
foo|upper
foo|trim
foo|first
foo|int
foo|items|list
foo ~ 'a'
foo + 'a'
foo == none
foo in ['a']
'a' in foo
foo.bar
foo['bar']
foo()
foo is iterable
foo is sequence
foo is callable
foo is string
foo is mapping
[foo]|tojson
none|tojson
foo|default(none)|tojson
{'a':{'b':[]}}|tojson(indent=4)
[1.0,2.5,1e20,1e-7]|tojson
{1:2}|tojson
{none:1,true:2,1.5:3}|tojson
'\\u2028\\x7f\\x00'|tojson
'<>&\\''|tojson
(1,2)|tojson
[1,2][0:1]|tojson
([1]+[2])|tojson
messages|tojson
1e300
-0.0
1e16
123456789012345680.0
0.00001
1/3
10**20
7.0//2
-7//2
2**-1
'%d%%' % 5
'%s and %s' % ('a', 'b')
'%5.2f|%-4s|%04d' % (1.5, 'a', 7)
'x' ~ '%s' % messages[0].content ~ 'y'
'%(a)s' % {'a':1}
'a%sb'|format('c')
7 % 3
"it's" % ()
'  a b  '.split()
' a b '.split(none, 1)
' a  b '.rsplit(none, 1)
'a b c'.split(maxsplit=1)
'a,b'.split(sep=',')
''.split()
''.split(',')
',a,'.split(',')
'a--b'.partition('--')
'a'.partition('-')
'a'.rpartition('-')
'abcabc'.find('c', 3)
'abcabc'.rfind('a')
'abcabc'.count('a', 1)
'abc'.startswith('b', 1)
'abc'.startswith(('x','a'))
'abc'.startswith(['x','a'])
'é\\u0130'.lower()
'ß'.upper()
'ß'.casefold()
"they're bill's".title()
"they're bill's"|title
"HELLO wORLD"|capitalize
'aB1'.swapcase()
'a\\tb'.expandtabs(4)
'a\\tb'.expandtabs()
'-5'.zfill(4)
'a'.center(4)
'ab'.center(5)
'a'.center(4,'*')
'a'.rjust(3,'.')
'a\\x0bb\\x0cc\\x1cd\\x85e\\u2028f\\r\\ng'.splitlines()
'a\\n\\nb\\n'.splitlines(true)
'a\\nb'.splitlines(keepends=true)
'\\x1ca\\x1f'.strip()
'\\x1ca\\x1f'|trim
'xxaxx'|trim('x')
'  a '.lstrip()
'\\u3000a\\u00a0'|trim
'\\u200ba'|trim
'a\\x1cb'.split()
'\\x1c'.isspace()
''.isspace()
' '.isspace()
'abc'.isalnum()
'1'.isdecimal()
'Ab Cd'.istitle()
'A'.islower()
'a,b,c'.replace(',','')
'aaa'.replace('a','b',2)
''.join(['a',1])
''.join([])
'-'.join('abc')
[1,2,1].index(2)
[1,2].index(3)
[1,2,1].count(1)
[1].copy()
{'a':1}.copy()
{'a':1}.get('a')
{'a':1}.get('b')
{'a':1}.get('b',2)
{'items':1}.items()|list
{'items':1}['items']
{'a':1}.keys()|list
{'a':1}.values()|list
{'a':1} is iterable
[1].append(2)
{'a':1}.update({})
'{a}'.format(a=1)
'{:>5}|{:<5}|{:^5}'.format('a','b','c')
'foo bar baz qux'|truncate(9)
'foo bar baz qux'|truncate(9, true)
'foo bar baz qux'|truncate(9, true, '..')
'foo bar baz qux'|truncate(11, leeway=0)
'foo bar baz qux'|wordcount
'a é/ b&'|urlencode
{'a b':'c&d'}|urlencode
[('a','b')]|urlencode
'12.7'|int
'12x'|int(5)
'ff'|int(base=16)
'0x1f'|int(base=16)
'0x1f'|int(0,16)
' 7 '|int
true|int
none|int
'1.5'|float
'x'|float
'x'|float(2.0)
3|float
2.5|round
2.567|round(2)
2.1|round(0,'ceil')
1234.5|int
'abc'|first
'abc'|last
'abc'|list|join('-')
'abc'|sort|join
[3,1,2]|sort(reverse=true)
['b','A']|sort
['b','A']|sort(case_sensitive=true)
messages|map(attribute='content')|list
messages|map('tojson')|list
messages|selectattr('role','in',['user'])|list|length
messages|rejectattr('role')|list|length
[{'a':1},{'a':2}]|sum(attribute='a')
[{'a':2},{'a':1}]|sort(attribute='a')|map(attribute='a')|list
[1,none,2]|select|list
[1,2,3]|select('odd')|list
[0,1]|reject|list
[[1,2],[3,4]]|map('first')|list
{'a':1,'b':2}|map('upper')|join
range(3) is iterable
(1,2) is sequence
{}.items() is sequence
{}.items() is iterable
1 is iterable
true is iterable
none is sequence
'a' is mapping
raise_exception is callable
range is callable
namespace is callable
messages is callable
{} is callable
true is number
true is integer
1 is boolean
none is boolean
'a' is string
messages[0] is string
'' is defined
'a' is sameas('a')
none is sameas none
1 == true
'1' == 1
[1] == (1,)
1 < 2
not []
[] or 'x'
0 or 'y'
'' and 'z'
'a' if foo else 'b'
foo.x is defined
foo is defined and foo.x is defined
messages[0].foo.bar is defined
messages[-1]['content']
messages[99] is defined
messages[0].get('content')
messages[0].items()|list
messages[0].keys()|list|join
'abc'[5] is defined
'abc'[5:]
'abc'[-2:]
'abc'[::2]
[1,2,3][-2:]
(1,2,3)[1:]
messages[1:]|length
messages[:-1]|length
messages[::-1]|map(attribute='role')|list
'a' * 0
[1,2] + [3]
[1] + (2,)
(1,)
()
(1)
[1,[2,{'a':none}]]
{'a':[true,false,none,'x']}
"a'b"
['a\\'b']
['a"b\\'c']
['\\t\\n\\\\']
'\\x4'
'\\777'
'\\/'
'\\e'
"\\\\n"
strftime_now('%Y') is string
cycler(1,2).next()
joiner()() ~ 'x'
dict(a=1)
namespace(a=1,b='x').b
loop is defined
caller is defined
varargs is defined
true
True
none
None
null
undefined
'a' is not string
1 is divisibleby 2
2 is even
'a' is in ['a']
'a' is eq 'a'
3 is gt 2
'B' is upper
1 is odd
1.0 is float
1 is float
'abc' is filter
'upper' is filter
'odd' is test
10|abs
'a'|e
'a<b'|escape|length
'x'|indent(4)
'a\\nb'|indent(2, true)
'a\\nb'|indent('>>')
'a\\n\\nb'|indent(2, blank=true)
'a'|default('b')
''|default('b')
''|default('b', true)
foo|d('b')
[1,2,3]|batch(2,'x')|list
[1,2,3]|slice(2)|list
{'b':1,'a':2}|dictsort(by='value')
{'b':1,'A':2}|dictsort
{'a':1}|items|list
['a','B']|unique|list
['a','A']|unique|list
[1,2]|max
['a','B']|max
[{'a':1}]|max(attribute='a')
'a b'|replace(' ', '_')
'aaa'|replace('a','b',1)
1|replace('1','2')
'abc'|reverse
[1,2]|reverse|list
messages|groupby('role')|map(attribute='grouper')|list
messages|groupby('role')|list|length
'a\\nb'|wordcount
1|string ~ 2
1 ~ 1.0 ~ none ~ true
'%.1f'|format(2.25)
'%s'|format(none)
'%x'|format(255)
'%c'|format(65)
'%s %s'|format('a')
'a' 'b'
['a' 'b']
{'a' 'b': 1}
1_000
0b11
0o17
0xff
1.5e3
.5 is defined
5 // 0
5 % 0
5 / 0
1 if
messages[0].content|trim|length
messages[0]['role'] + ': ' + messages[0].content
(messages|length - 1) is odd
messages | selectattr('role', 'equalto', 'system') | list | count == 0
messages[0].content.split('</think>')[-1].lstrip('\\n')
messages[0].content is string and 'x' not in messages[0].content
'a' | upper | lower ~ 'B'
- 3 | abs
-3|abs
2 ** 3 ** 2
-2 ** 2
not 1 in [2]
not 1 == 2
1 + 2 ~ 3
'a' ~ 1 + 2
1 < 2 < 3
3 > 2 > 2
1 in [1] == true
'x' if 1 else 'y' if 0 else 'z'
messages|length > 1 and messages[0].role == 'user'
"""

TEMPLATES = {
'continued literal':"{{ 'a\\\nb' }}",
'for none':"{% for x in none %}a{% else %}b{% endfor %}c",
'for tools':"{% for x in tools %}a{% endfor %}c",
'for num':"{% for x in 3 %}a{% endfor %}c",
'for str':"{% for x in 'ab' %}{{ x }}-{% endfor %}",
'for dict':"{% for x in {'a':1,'b':2} %}{{ x }}-{% endfor %}",
'for tuple':"{% for x in 1,2 %}{{ x }}-{% endfor %}",
'for tern':"{% for x in ([1] if true else [2]) %}{{ x }}-{% endfor %}",
'for if':"{% for m in messages if m.role == 'user' and m.content is defined %}{{ m.role }}{{ loop.length }}{% endfor %}",
'for unpack':"{% for k, v in {'a':1}.items() %}{{ k }}={{ v }}{% endfor %}",
'for recursive':"{% for x in [1,[2,[3]]] recursive %}{% if x is number %}{{ x }}{% else %}({{ loop(x) }}){% endif %}{% endfor %}",
'for ws':"{%- for x in [1,2] -%}\n {{ x }} \n{%- endfor -%}",
'for ws2':"a\n  {%- for x in [1,2] if x > 1 -%}\n {{ x }} \n{%- endfor +%}\nb",
'for filter':"{% for x in messages|selectattr('role','equalto','user') %}{{ x.content }}{% endfor %}",
'for loop':"{% for m in messages[1:] %}{{ loop.index0 }}{{ loop.last }}{% endfor %}",
'for in str':"{% for x in ['a in b', \"c if d\"] %}{{ x }};{% endfor %}",
'for in cond':"{% for x in [1,2,3] if x in [2] %}{{ x }}{% endfor %}",
'for nested':"{% for m in messages %}{% for c in m.content %}{{ loop.index }}{% endfor %}{% endfor %}",
'for undefined':"{% for x in messages[0].tool_calls %}x{% endfor %}e",
'for else':"{% for x in [] %}a{% else %}b{% endfor %}",
'crlf 2':"a\r\n{% if true -%}\r\n  b\r\n{%- endif %}\r\n\r\nc\r\n",
'cr literal':"{{ 'a\r\nb\rc' }}",
'raw':"{% raw %}{{ 'a\\x41' }}{% for x in y %}{% endraw %}|{{ '\\x41' }}",
'raw ws':"a {%- raw -%} {{ x }} {%- endraw -%} b",
'comment':"{# '{{ \" #}{{ '\\x41' }}",
'set block':"{% set x %}a\\x41{{ '\\x41' }}{% endset %}{{ x }}",
'text quotes':"it's \\x41 {{ 'b' }} \"",
'braces':"{ {{ {'a':{'b':1}}['a']['b'] }} }} {",
'dict end':"{{ {'a':{'b':'\\x41'}} }}",
'tag in literal':"{{ '%}' }}{{ '}}' }}{% if '%}' == '%}' %}y{% endif %}",
'gen loop':"{% for m in messages %}{% generation %}{{ m.role }}{% if loop.last %}L{% endif %}{% endgeneration %}{% endfor %}",
'gen ws':"a\n  {% generation %}\n  x\n  {% endgeneration %}\nb",
'gen ws2':"a\n  {%- generation -%}\n  x\n  {%- endgeneration -%}\nb",
'gen set':"{% set x = 1 %}{% generation %}{% set x = 2 %}{{ x }}{% endgeneration %}{{ x }}",
'gen ns':"{% set n = namespace(x=1) %}{% generation %}{% set n.x = 2 %}{{ n.x }}{% endgeneration %}{{ n.x }}",
'gen macro':"{% macro m() %}{% generation %}a{% endgeneration %}{% endmacro %}{{ m() }}",
'percent set':"{% set x = 'a%s' % messages[0].role %}{{ x }}",
'percent call':"{{ 'a%s' % messages[0].role.upper()|lower ~ 'z' }}",
'percent end':"{% if 'a' %}x{% endif %}{% set y='b'%}{{ y }}",
'macro kw':"{% macro f(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}{{ f(1, b=3) }}{{ f(b=1, a=2) }}",
'macro default none':"{% macro f(a, b=none) %}{{ a }}{{ b }}{% endmacro %}{{ f(1) }}",
'macro missing':"{% macro f(a) %}[{{ a }}]{% endmacro %}{{ f() }}",
'call':"{% macro f() %}<{{ caller() }}>{% endmacro %}{% call f() %}x{% endcall %}",
'set tuple':"{% set a, b = [1, 2] %}{{ a }}{{ b }}",
'ns list':"{% set ns = namespace(l=[]) %}{% for i in [1,2] %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.l }}{{ ns.l|length }}{{ ns.l|tojson }}",
'loop scope':"{% set x = 1 %}{% for i in [1] %}{% set x = 2 %}{% endfor %}{{ x }}",
'if scope':"{% if true %}{% set x = 2 %}{% endif %}{{ x }}",
'with':"{% with a=1, b=2 %}{{ a }}{{ b }}{% endwith %}",
'filter block':"{% filter upper|trim %} a {% endfilter %}",
'do':"{% do messages %}",
'elif':"{% if false %}a{% elif true %}b{% else %}c{% endif %}",
'block':"{% block a %}x{% endblock %}",
'autoescape':"{% autoescape true %}{{ '<' }}{% endautoescape %}",
'break':"{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
'trailing':"a\n\n",
'leading ws':"   a",
'lstrip':"  {{ 'a' }}\n  {% if 1 %}b\n  {% endif %}\n",
'tabs':"\t{% if 1 %}\n\ta\n\t{% endif %}\n",
'if lstrip text':"x  {% if 1 %}\n y{% endif %}",
'comment trim':"a\n{# x #}\nb",
'comment lstrip':"a\n   {# x #}\nb",
'minus comment':"a \n{#- x -#}\n b",
'empty tag':"{{ }}",
'unclosed':"{{ 'a'",
'else for':"{% for x in none or [] %}{% else %}e{% endfor %}",
'str concat list':"{{ 'a' + ['b'] }}",
'json sort':"{{ {'b':1,'a':{'d':1,'c':2}}|tojson(sort_keys=true, indent=2) }}",
'json sep':"{{ {'b':1,'a':[1,2]}|tojson(separators=(',', ': '), indent=1) }}",
'json ascii':"{{ 'é😀'|tojson(ensure_ascii=true) }}",
'json bad':"{{ raise_exception|tojson }}",
'json indent str':"{{ [1]|tojson(indent='\\t') }}",
'json set':"{% set x %}a{% endset %}{{ x|tojson }}",
}

def render(template):
    try:
        texts, _ = render_jinja_template([MESSAGES], chat_template=template, add_generation_prompt=True, bos_token="<s>")
    except Exception:  # Whatever it is, the template does not do there.
        return None
    return texts[0]


templates = ["{{ " + line + " }}." for line in EXPRESSIONS.splitlines() if line.strip()]
templates += TEMPLATES.values()
cases = [[template, render(template)] for template in templates]
lines = ",\n".join(json.dumps(case) for case in cases)
(FOLDER / "engine.json").write_text(f"[\n{lines}\n]\n")

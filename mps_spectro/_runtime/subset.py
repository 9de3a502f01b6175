"""The subset of the Metal Shading Language that shaders/README.md states: its words, and what it refuses."""

from __future__ import annotations

import re

BUILTIN_TYPES = (
    "void bool char uchar short ushort int uint long ulong half "
    "float float2 float3 float4 int2 int3 int4 uint2 uint3 uint4"
).split()

SPACES = "device|constant|threadgroup|thread"
TYPE = r"[A-Za-z_]\w*(?:\s*<[\w\s,]*>)?"
POINTER = re.compile(rf"\b(?:(const)\s+)?({SPACES})\s+(?:(const)\s+)?(?!const\b)({TYPE})\s*(?:\b(const)\s*)?([*&])")

# construct -> why it is refused; compilers of the other targets would take most of these without a word
_REFUSED = (
    (r"\bdouble\b", "there is no double in Metal"),
    (r"\blong\s+long\b|\bunsigned\b|\bsigned\b|\bsize_t\b", "integers are int, uint, long, ulong, short, ushort"),
    (r"\bauto\b", "auto hides the address space"),
    (r"\batomic\w*|\btexture\w*|\bsampler\b", "atomics and textures are outside the subset"),
    (r"\b(?:virtual|class|new|delete|goto|try|throw|static|extern|asm|typedef|union)\b", "outside the subset"),
    (r"\[\s*[&=]?\s*\]\s*[({]", "lambdas are outside the subset"),
    (r"(?:[(,=?:{]|\breturn)\s*&\s*\w+\s*\[", "write p + i for the address of an element"),
    (r"^[ \t]*#[ \t]*include\b", "the shader must be one text; includes are inlined by the loader"),
    (r"\busing\s+namespace\b|\bmetal::", "the metal namespace belongs under #if defined(__METAL_VERSION__)"),
)


class Refusal(Exception):
    """What is wrong at a position of the text."""

    def __init__(self, text: str, position: int, why: str) -> None:
        super().__init__(why)
        self.lines_before = text.count("\n", 0, position)


def _blank(match: re.Match[str]) -> str:
    return " " + "\n" * match.group().count("\n")


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", _blank, text, flags=re.DOTALL)


def without_metal_only(text: str) -> str:
    """Blanks what only Metal compiles; other conditions are left to the compiler."""
    lines = text.split("\n")
    # True: kept branch of a Metal test, False: dropped branch, None: some other condition
    stack: list[bool | None] = []
    for number, line in enumerate(lines):
        directive = re.match(r"\s*#\s*(if|ifdef|ifndef|else|elif|endif|pragma\s+METAL)\b\s*(.*)", line)
        word, rest = directive.groups() if directive else ("", "")
        drop = False in stack
        if word in ("if", "ifdef", "ifndef"):
            test = (word + " " + rest).replace(" ", "").strip()
            metal = {"ifdefined(__METAL_VERSION__)": False, "ifdef__METAL_VERSION__": False}
            other = {"if!defined(__METAL_VERSION__)": True, "ifndef__METAL_VERSION__": True}
            branch = (metal | other).get(test)
            stack.append(branch)
            drop = drop or branch is not None
        elif word in ("else", "elif", "endif") and stack:
            drop = drop or stack[-1] is not None
            if word == "endif":
                stack.pop()
            elif stack[-1] is not None:
                if word == "elif":
                    position = len("\n".join(lines[:number])) + 1
                    raise Refusal("\n".join(lines), position, "#elif after a test of __METAL_VERSION__")
                stack[-1] = not stack[-1]
            drop = drop or False in stack[:-1]
        elif word:
            drop = True
        if drop:
            lines[number] = ""
    return "\n".join(lines)


def check(text: str) -> None:
    """Refuses constructs outside the subset."""
    for pattern, why in _REFUSED:
        if found := re.search(pattern, text, re.MULTILINE):
            raise Refusal(text, found.start(), f"{found.group().strip()!r}: {why}")
    _check_pointers(text)


def _check_pointers(text: str) -> None:
    """Every pointer and reference to a known type must name its address space."""
    own = re.findall(r"\bstruct\s+(\w+)", text) + re.findall(r"\b(?:typename|using)\s+(\w+)", text)
    bare = re.compile(rf"\b(?:{'|'.join([*BUILTIN_TYPES, *own])})\b(?:\s*<[\w\s,]*>)?\s*(?:const\s*)?[*&]")
    named = [match.span() for match in POINTER.finditer(text)]
    for match in bare.finditer(text):
        if not any(start <= match.start() < end for start, end in named):
            raise Refusal(text, match.start(), f"{match.group()!r}: a pointer must name its address space")
    for match in POINTER.finditer(text):
        if re.match(r"\s*[*&]", text[match.end() :]):
            raise Refusal(text, match.start(), f"{match.group()!r}: pointers to pointers are outside the subset")
        if match.group(6) == "&" and match.group(2) in ("device", "threadgroup"):
            raise Refusal(text, match.start(), f"{match.group()!r}: pass a pointer, references are thread or constant")


def closing(text: str, opening: int) -> int:
    """Position of the bracket that closes the one at `opening`."""
    pairs = {"(": ")", "{": "}"}
    first, last = text[opening], pairs[text[opening]]
    depth = 0
    for match in re.compile(rf"[{re.escape(first + last)}]").finditer(text, opening):
        depth += 1 if match.group() == first else -1
        if depth == 0:
            return match.start()
    raise Refusal(text, opening, f"{first!r} is never closed")

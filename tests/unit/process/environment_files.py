"""Environment files, and the result: variables, or a bad line."""

from __future__ import annotations

LARGEST = 1 << 20

CASES: dict[str, tuple[bytes, dict[bytes, bytes] | int]] = {
    "nothing": (b"", {}),
    "empty lines and comments": (b"\n  \n# A=1\n\t; B=2\n#\n", {}),
    "the last line without an end": (b"A=1", {b"A": b"1"}),
    "blanks around": (b"  B = two words \t\n", {b"B": b"two words"}),
    "quotes": (b"C=\"quoted # and = kept\"\nD='single \"inside\"'\nF=\"\"\nG=\"open\nH=\"\nI='\"\n",
               {b"C": b"quoted # and = kept", b"D": b'single "inside"', b"F": b"", b"G": b'"open', b"H": b'"',
                b"I": b"'\""}),
    "blanks inside quotes": (b"A=\"  b  \"\n", {b"A": b"  b  "}),
    "nothing is expanded": (b"H=$A\\n\n_i9=#x\n", {b"H": b"$A\\n", b"_i9": b"#x"}),
    "an empty value": (b"E=\nF=  \n", {b"E": b"", b"F": b""}),
    "the last one wins": (b"A=1\nB=2\nA=3\n", {b"A": b"3", b"B": b"2"}),
    "a shell's": (b"export A=1\r\n; a comment\nexport \t B = export C\nexport=2\nexported=3\n",
                  {b"A": b"1", b"B": b"export C", b"export": b"2", b"exported": b"3"}),
    "an editor's": (b"\xef\xbb\xbfA=1\n", {b"A": b"1"}),
    "no letters of any alphabet": (b"A=\xff\xfe\nB=\xc3\xa9\xe2\x80\x83\n",
                                   {b"A": b"\xff\xfe", b"B": b"\xc3\xa9\xe2\x80\x83"}),
    "equals signs": (b"A==b=\n", {b"A": b"=b="}),
    "form feeds": (b"\fA\v=\f1\v\n", {b"A": b"1"}),
    "many": (b"".join(b"N%d=%d\n" % (n, n) for n in range(5000)), {b"N%d" % n: b"%d" % n for n in range(5000)}),
    "as much as there may be": (b"A=1\n#" + b"x" * (LARGEST - 5), {b"A": b"1"}),
    **{
        f"a bad line: {line!r}": (b"A=1\n" + line + b"\n", 2)
        for line in (b"secret", b"=secret", b"9A=secret", b"A B=secret", b"export secret", b"export =secret",
                     b"export", b"A=se\0cret", b"A\0=secret", b"\0", b"A-B=secret", b"\xef\xbb\xbfA=secret",
                     b"\xc2\xa0A=secret", b"\xc3\xa9=secret", b'"A"=secret')
    },
    "a bad line at the end": (b"\n\n\nsecret", 4),
}  # fmt: skip

"""Texts that tell tokenizers apart: white space, accents, scripts, emoji, contractions, tokens spelt out, damage."""

TEXTS = [
    "",
    " ",
    "a cat",
    "  A   CAT\t\n on\r\na mat  ",
    "a\u00a0cat\u2003an\u3000ant\u2028the\u2029dog\u0085!",  # spaces, line separators, a control character
    "café CAFÉ cafe\u0301 CAFE\u0301",  # composed and decomposed
    "Ünïcödé naïve élan",
    "e\u0323\u0302 \u1ec7 \u0344",  # marks in another order, and one that always decomposes
    "Größe STRASSE straße ﬁne ﬆ",
    "İstanbul ISTANBUL ıi",
    "ΓΆΤΑ ΣΊΣΥΦΟΣ Σ ΑΣ! ΑΣΑ",  # a sigma at the end of a word
    "Кошка и СОБАКА",
    "a 猫 猫と犬 cat猫dog",
    "ネコ ねこ ｶﾅ",
    "\uf900\u2f00 \U00020000\U0002b820 \u3007",  # ideographs in and out of CJK's blocks
    "고양이 \u1100\u1161",  # a syllable, and one to compose
    "แมว बिल्ली قطة חתול",
    "🐈 🐈🐜 cat🐈",
    "👩\u200d🚀 👍🏽 🇩🇪 ❤️ 1️⃣",  # joiners, skin tones, flags, variation selectors
    "the cat's, isn't we've they'll I'm you'd we're",
    "CAT'S ISN'T WE'VE THEY'LL",
    "'s's 'tis ''s 'x cats' rock'n'roll",
    "cat\u2019s isn\u2019t '\u017f cat'\u017ftail",
    "'lll 'ree !'s ?'t",
    "12345 3.14 x2 2x ½ ² Ⅻ ١٢ 1e-3",
    "!!! ... ?!? --- a-b a_b a.b (cat) [dog] {ant}",
    "&amp; &lt;cat&gt; &eacute; &#39; &quot;",
    "<b>cat</b> <|cat|> <|startoftext|x",
    "<|startoftext|>a cat<|endoftext|>",
    "a<|endoftext|>cat<|endoftext|><|endoftext|>",
    "!<|endoftext|>! <|ENDOFTEXT|> !<|EndOfText|> <|end\u00adoftext|>",
    "<painting>cat <paint <painting>s <Painting>",
    "a\x00cat \x01\x02an\x1f\x7f ant\x9f a\u00adnt \u200bcat \ufeffdog \ufffd",
    "\x1b[31mcat\x1b[0m\x0b\x0cdog",
    "\ue000cat \U000f0000",  # private use
    "\u0378 unassigned",
    "¿qué? ¡hola! «cat» „dog“ … – — €5 £6 §7 ©",
    "𝔠𝔞𝔱 ｃａｔ ⓒⓐⓣ",  # letters by compatibility only
    "ǅ ǆ Ǆ ŉ ß ẞ",
    "a cat " * 40,
    "word" * 60,
    "🐈" * 40,
    "!" * 100,
    "'" * 7 + "s" + "\u0301" * 5,
    " , ".join(["a highly detailed oil painting of a cat", "trending", "4k", "8k uhd", "by a famous artist"] * 4),
]

"""The words around the letter of a multiple choice, in the languages of multilingual benchmarks.

The words for `answer` are those of simple-evals (`MULTILINGUAL_ANSWER_REGEXES`) and a few more. All are in lower case.
"""

import re
import unicodedata


def _words(text: str) -> frozenset[str]:
    """The words of a text in NFKC, as the text is in that they are looked for in."""
    return frozenset(unicodedata.normalize("NFKC", text).split())


ANSWER = _words(
    """
    answer answers ans antwort lösung réponse reponse respuesta resposta risposta soluzione solución solution
    ответ відповідь odpowiedź odpowiedzią odpověď odpoveď cevap yanıt jawaban jawabannya jibu svar svaret antwoord
    vastaus válasz răspuns răspunsul απάντηση उत्तर जवाब উত্তর উত্তরঃ الإجابة الاجابة الجواب إجابة جواب اجابة پاسخ
    תשובה התשובה án lời idahun ìdáhùn idáhùn àmọ̀nà àdáhùn ànúgọ àṣàyàn sagot sagutan conclusion verdict
    """
)
"""Nouns that announce the letter: `answer: C`, `the answer is C`."""
NAMES = _words(
    """
    option options choice letter alternative selection pick response statement candidate opción opcion letra
    alternativa opção opcao lettre proposition choix lettera opzione scelta buchstabe antwortmöglichkeit auswahl
    möglichkeit вариант буква букву буквой seçenek şık opcja pilihan opsi optie alternativ keuze विकल्प বিকল্প
    الخيار الحرف خيار گزینه chaguo đáp câu
    """
)
"""Nouns that may stand right before the letter, `option C`, and announce it if a verb stands between."""
BEST = _words(
    """
    correct corect right best appropriate accurate suitable likely proper true richtig richtige korrekte beste
    correcte bonne juste correcta correcto mejor correta correto certa melhor corretta giusta migliore правильный
    верный правильно doğru
    """
)
"""Adjectives that announce a letter with a noun of any kind: `the most likely cause is C`."""
LOOSE_BEST = _words("right true proper")
"""Those of them that say other things too: `the right angle is B`."""
PICKS = _words(
    """
    pick picked picking choose chose choosing select selected selecting go going went opt opting vote guess say
    prefer conclude settle stick bet submit respond answered wähle nehme choisis choisirais choisir elijo escojo
    elegiría escolho escolheria scelgo sceglierei выбираю выберу seçiyorum wybieram kies väljer velger pilih chọn
    """
)
"""Verbs of who decides: `I would go with C`."""
VERBS = _words(
    """
    is was are be been would should must might may could can will has have seems seem seemed appears appear looks
    equals becomes remains ist war wäre lautet est était serait es sería é è seria seja sarebbe является это jest
    on adalah ni ialah är er là este je είναι היא הוא هي هو है होगा হল হলো हैं =
    """
)
CORRECTIONS = _words("but rather sondern mais sino mas ma bensì а но maar men ale però it's it is")
"""What stands before the letter that is meant: `not B but C`."""
SO = _words("so therefore thus hence then ergo daher donc quindi somit portanto поэтому")
"""What begins a conclusion."""
GUESSES = _words("it's that's leaves maybe perhaps probably definitely")
"""Words before the letter that somebody settles on: `maybe C.`"""
FILLERS = (
    VERBS
    | NAMES
    | BEST
    | SO
    | CORRECTIONS
    | _words(
        """
        the this that only one ones indeed definitely clearly certainly obviously probably most very actually
        really simply just now surely undoubtedly perhaps possibly maybe also still always either between both of
        to with for as by my our your here below final finally i we think believe guess say get it that's i'd i'll
        we'd overall ultimately again sorry hmm wait ok okay well yes no sure like closest better more given among
        marked number labelled labeled chosen let's a an our on me too you course der die das dem den also wohl
        endgültige meine la le les lo el il los l'option l'opzione o os um uma a e finale définitive mi definitiva
        minha por tanto então logo mia c'est под номер итак конечный окончательный nihai son ostateczna juiste
        rätt riktige riktiga benar sahihi akhir yang الصحيحة النهائية الصحيح النهائي सही अंतिम সঠিক đúng trả cuối
        cùng poprawna prawidłowa správná helyes です である だ 번 입니다 이다 选项 選項 项 項 是
        """
    )
)
"""What may stand between the announcement and the letter."""
DENIALS = _words(
    """
    not cannot never neither nor except excluding nicht kein keine weder pas n'est jamais nunca não nao non niet
    ikke inte nie не ни değil bukan không ليس ليست नहीं নয় wrong incorrect false eliminate eliminated eliminating
    exclude excluded reject rejecting ruling rule out discard unlike
    """
)
DOUBTS = _words(
    "if unless whether not don't didn't never many some students people someone they tempted others who wouldn't"
)
"""Before a verb of picking these say that nobody picked: `if you pick B`."""
SUPPOSED = _words(
    """
    if suppose supposing assume assuming assumed imagine angenommen supposons supongamos often some students many
    people someone others first initially glance
    """
)
"""Before an announcement in its sentence these say that it is no answer yet: `suppose the answer is B`."""
SECOND_THOUGHTS = _words("no wait actually sorry mean correction rather nein non")
"""What takes back what was announced: `A... no, B`."""
QUESTIONS = _words("is could can would might should isn't why")
"""Before `the answer` these ask, if a question mark follows."""
BRIDGES = _words("to for of among from in based given , that here which out between after")
"""After `answer` these let other words follow before the verb: `the answer to this question is C`."""
FOLLOW = _words(
    """
    because since as is was and or but due given for not rather over instead which where if with by from based
    according und oder weil da ist et ou car est y o porque es e perché è и или потому to through
    """
)
"""Words that may follow a letter `A` or `I`; before others it is an English word."""

# Chinese, Japanese, Korean and Thai are written without spaces, so that the words end right before the letter.
UNSPACED = re.compile(
    r"(?:答案|答复|答覆|正解|选项|選項|答え|回答|解答|答|选择|選擇|选|選|정답|답변|답|ค\u0e4d\u0e32ตอบ|ข้อ|不是\s?[A-J]\s?,?\s?而是)"
    r"(?:ที่ถูกต้อง|正确的?|最终的?|应该?|應該?|就|就是|是|为|為|项|項|选|選|は|이|은|는|คือ|ข้อ|[\s:()\[\]\"'「」『』【】<*-])*$"
)
CLOSED = "[)\\]}\"'»”\u2019」】]*"
ALSO = re.compile(
    rf"""{CLOSED}\s*\(?
    (?P<by>\.\s+[Oo]r\s|,\s*(?:and|or|und|oder|et|ou|y|o|e)\s|,|/|;|&|\+|\||、|~|
       (?:and/or|and|or|und|oder|et|ou|y|o|u|e|и|или|en|of|ve|veya|dan|atau|och|eller|og|i|lub|albo|और|या|و|أو|și|sau)\s|
       [ \t]+(?=[B-HJ](?![A-Za-z'\u2019]))|\b(?:to|through|bis|versus|vs\.?)\s|和|或者?|与|跟|及|と|または|か|や|
       와|과|또는|หรือ|และ)\s*
    (?:(?:either|maybe|perhaps|possibly|even|also|option|choice|answer|the|both|could\ be|it\ could\ be)\s+)*
    ["'(\[«“「【]*(?P<other>[A-Ja-j])(?![0-9A-Za-z_À-ɏͰ-ϿЀ-ӿ'\u2019])""",
    re.VERBOSE,
)
"""What makes two letters of one: `C or D`, `A, B`."""
ALSO_LISTED = re.compile(
    r"[)\].:]+ [^.!?\n]{0,60}?(?P<by>,|/|&|\b(?:and|or|und|oder|et|ou|y|o|e))\s+(?:option\s+)?"
    r"\(?(?P<other>[A-J])[).:](?=\s)"
)
"""The same of options with their texts: `A) Paris or B) Rome`."""
TOLD_OF = re.compile(r"[)\]]*\s+(?:is|was|would|does|has|can|being|refers|says)\b")
"""What follows a letter that is spoken of by itself: `C, A is wrong`."""
DENIED = re.compile(
    rf"""(?:{CLOSED}|[.:])*\s*(?:,?\s*which\s+)?(?:
    (?:is|are|was|were|does|do|can|could|would|will|has|seems|looks|must|should)\s?n[o'\u2019]t\b|
    (?:is|are|was|seems|looks|must|would|can|could|does|should)\s+
       (?:(?:also|be|clearly|definitely|obviously|simply|just|both|therefore|all)\s+)*
       (?:not|never|wrong|incorrect|false|impossible|out|ruled|eliminated|excluded|irrelevant|invalid|unlikely|no\b)|
    cannot|can't|won't|(?:ist|sind|wäre)\s+(?:nicht|falsch)|n'est|est\s+(?:faux|fausse|incorrecte?)|
    no\s+(?:es|puede)|
    (?:es|é|è)\s+(?:falsa?|incorrect[ao]|errad[ao]|sbagliat[ao]|non)|não\s|non\s+è|не\s|неверн|неправильн|
    (?:wrong|incorrect|false)\b|ではない|は(?:違|間違|誤)|(?:选项|選項|项|項)?\s?是?(?:错|錯|不正确|不对|不是)|
    가\s?아니|이\s?아니|नहीं|गलत)""",
    re.VERBOSE | re.IGNORECASE,
)
"""`B is wrong`."""
AFFIRMED = re.compile(
    rf"""(?:{CLOSED}|:)*\s*(?:[-\u2013\u2014]\s*)?(?:
    ,?\s*(?:which\s+)?(?:is|are|was|must\s+be|seems|looks|would\s+be|should\s+be|has\s+to\s+be|appears\s+to\s+be|ist|est|es|
       é|è|está)\s+
    (?:(?:indeed|clearly|definitely|also|therefore|thus|the|most|only|likely|probably|obviously|la|le|el|die|a|o|my)\s+)*
    (?:correct|right|true|best|answer|accurate|appropriate|solution|choice|one|
       richtig|richtige|korrekt|antwort|correcte?|
       bonne|juste|vraie?|correct[ao]|verdader[ao]|respuesta|certa|resposta|verdadeira|corretta|giusta|vera|réponse|final)\b
    |\s+(?:fits|works|matches)\b|\s+(?:best\s+[a-z]+s|makes\s+(?:the\s+)?(?:most|best|more)\s+sense)\b|\s+is\s*[.!]
    |(?:选项|選項|项|項)?\s?是?(?:正确|对|答案)|が(?:正|答)|가\s?(?:정답|맞)|이\s?(?:정답|맞)|सही|-\s*правильн|верн|правильн)(?!\s*\?)""",
    re.VERBOSE | re.IGNORECASE,
)
"""`C is correct`."""

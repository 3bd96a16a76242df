r"""What an answer must look like for its verifier to read it, as the words before a question.

A model that has never been told would often be right and judged wrong: the number in the middle of a sentence, the
letter within a word. For `exact` nothing can be said in general; the question itself must name the form.
"""

from types import MappingProxyType

INSTRUCTIONS = MappingProxyType(
    {
        "numeric": "Solve the problem. End with a line of '#### ' and the number.",
        "maths": "Solve the problem. Put the final answer into \\boxed{}.",
        "choice": "Answer with the letter of the right choice alone.",
        "code": "Solve the task in Python. Answer with one code block that begins with ```python and ends with ```.",
        "gym": "Answer with the final answer alone, without any explanation.",
    }
)
"""By verifier; none for the others."""

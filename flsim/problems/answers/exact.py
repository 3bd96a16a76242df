r"""Constants without rounding: `4^{505}` is `2^{1010}`, and `\frac{1}{2^{99}}` is not `\frac{1}{2^{98}}`.

A constant is a rational number times powers of primes and of pi with rational exponents. Such a product is 1 only if
every exponent is 0 (integers factor in one way, pi is transcendental), so that two constants are compared without being
multiplied out, and roots such as `3\sqrt{2}` and `\sqrt{18}` as exactly as fractions.
"""

import math
import re
from dataclasses import dataclass
from fractions import Fraction

_PI = 0
"""Stands for pi among the primes."""
_MOST_BITS = 20_000  # of a number that is multiplied out
_LARGEST_FACTORED = 10**12
_LARGEST_FACTORIAL = 3_000
_LARGEST_EXPONENT = 10**9
_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<command>\\(?:frac|sqrt|binom|cdot|times|div|pi)(?![A-Za-z]))"
    r"|(?P<sign>[-+*/^!(){}\[\]]))"
)


class UnknownError(Exception):
    """What is written is no constant of this kind, or too large to be compared."""


@dataclass(frozen=True)
class Constant:
    """A rational number times powers."""

    rational: Fraction
    powers: tuple[tuple[int, Fraction], ...] = ()
    """(prime, or 0 for pi; exponent, not 0), by prime."""

    def __mul__(self, other: "Constant") -> "Constant":
        powers = dict(self.powers)
        for prime, exponent in other.powers:
            powers[prime] = powers.get(prime, Fraction(0)) + exponent
        return _tidy(self.rational * other.rational, powers)

    def __add__(self, other: "Constant") -> "Constant":
        if self.powers == other.powers:
            return _tidy(self.rational + other.rational, dict(self.powers))
        return Constant(self.multiplied_out() + other.multiplied_out())

    def __neg__(self) -> "Constant":
        return Constant(-self.rational, self.powers)

    def __pow__(self, exponent: Fraction) -> "Constant":
        whole = exponent.denominator == 1
        if self.rational == 0:
            if exponent <= 0:
                raise UnknownError
            return self
        if abs(exponent) > _LARGEST_EXPONENT or (self.rational < 0 and not whole):
            raise UnknownError
        powers = {prime: old * exponent for prime, old in self.powers}
        if whole and abs(exponent) * _bits(self.rational) <= _MOST_BITS:
            return _tidy(self.rational ** int(exponent), powers)
        for prime, times in _factors(abs(self.rational)):
            powers[prime] = powers.get(prime, Fraction(0)) + times * exponent
        return _tidy(Fraction(-1 if self.rational < 0 and exponent % 2 else 1), powers)

    def equals(self, other: "Constant") -> bool:
        """Whether both are the same number."""
        if not (self.rational and other.rational):
            return self.rational == other.rational
        mine, others = dict(self.powers), dict(other.powers)
        if mine == others:
            return self.rational == other.rational
        primes = (mine.keys() | others.keys()) - {_PI}
        left, in_left = _without(self.rational, primes)
        right, in_right = _without(other.rational, primes)
        return left == right and all(
            mine.get(prime, 0) + in_left.get(prime, 0) == others.get(prime, 0) + in_right.get(prime, 0)
            for prime in mine.keys() | others.keys()
        )

    def multiplied_out(self) -> Fraction:
        """As a fraction.

        Raises:
            UnknownError: it is none, or too large.
        """
        value = self.rational
        for prime, exponent in self.powers:
            if exponent.denominator > 1 or prime == _PI or abs(exponent) * prime.bit_length() > _MOST_BITS:
                raise UnknownError
            value *= Fraction(prime) ** int(exponent)
        if _bits(value) > 4 * _MOST_BITS:
            raise UnknownError
        return value


def constant(text: str) -> Constant | None:
    """The constant that LaTeX in one writing says; None if it says none of this kind."""
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            return None
        tokens.append(match[0].strip())
        at = match.end()
    reader = _Reader(tokens)
    try:
        value = reader.sum()
    except (UnknownError, RecursionError):
        return None
    return value if reader.done() else None


class _Reader:
    """Sums of products of powers, by recursive descent."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens, self._at = tokens, 0

    def done(self) -> bool:
        return self._at == len(self._tokens)

    def _next(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, *wanted: str) -> bool:
        taken = self._next() in wanted
        self._at += taken
        return taken

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise UnknownError

    def sum(self) -> Constant:
        value = self._product()
        while self._next() in ("+", "-"):
            minus = self._take("-") or not self._take("+")
            term = self._product()
            value = value + (-term if minus else term)
        return value

    def _product(self) -> Constant:
        minus = False
        while self._next() in ("-", "+"):
            minus ^= self._take("-") or not self._take("+")
        value = self._power()
        while True:
            if self._take("*", "\\cdot", "\\times"):
                value = value * self._signed()
            elif self._take("/", "\\div"):
                value = value * self._signed() ** Fraction(-1)
            elif self._next() in ("(", "{", "\\frac", "\\sqrt", "\\binom", "\\pi"):  # side by side
                value = value * self._power()
            else:
                return -value if minus else value

    def _signed(self) -> Constant:
        return -self._power() if self._take("-") else self._power()

    def _power(self) -> Constant:
        mixed = self._mixed()
        if mixed is not None:
            return mixed
        value = self._atom()
        if self._take("!"):
            value = Constant(Fraction(math.factorial(_small(value, _LARGEST_FACTORIAL))))
        if self._take("^"):
            value = value ** self._argument().multiplied_out()
        if self._take("!"):  # a double factorial, or one of a power
            raise UnknownError
        return value

    def _mixed(self) -> Constant | None:
        r"""`3\frac{1}{2}`, which is a sum, as nobody writes that product so."""
        whole, rest = self._next(), self._tokens[self._at + 1 : self._at + 8]
        braced = len(rest) == 7 and [rest[place] for place in (0, 1, 3, 4, 6)] == ["\\frac", "{", "}", "{", "}"]
        if not (
            whole.isdigit() and braced and rest[2].isdigit() and rest[5].isdigit() and 0 < int(rest[2]) < int(rest[5])
        ):
            return None
        self._at += 8
        return Constant(int(whole) + Fraction(int(rest[2]), int(rest[5])))

    def _atom(self) -> Constant:
        token = self._next()
        self._at += 1
        if token == "\\pi":
            return Constant(Fraction(1), ((_PI, Fraction(1)),))
        if token == "\\frac":
            return self._argument() * self._argument() ** Fraction(-1)
        if token == "\\binom":
            top, bottom = _small(self._argument(), _LARGEST_FACTORIAL), _small(self._argument(), _LARGEST_FACTORIAL)
            return Constant(Fraction(math.comb(top, bottom)))
        if token == "\\sqrt":
            root = Fraction(2)
            if self._take("["):
                root = self.sum().multiplied_out()
                self._need("]")
            if root == 0:
                raise UnknownError
            return self._argument() ** (1 / root)
        if token in ("(", "{"):
            value = self.sum()
            self._need(")" if token == "(" else "}")
            return value
        if not token or not (token[0].isdigit() or token[0] == "."):
            raise UnknownError
        return Constant(Fraction(token.rstrip(".")))

    def _argument(self) -> Constant:
        return -self._atom() if self._take("-") else self._atom()


def _tidy(rational: Fraction, powers: dict[int, Fraction]) -> Constant:
    """With what is small enough multiplied out: 2^{3} is 8, and 2^{5/2} is 4 times 2^{1/2}."""
    kept: dict[int, Fraction] = {}
    for prime, exponent in powers.items() if rational else ():
        whole = exponent.numerator // exponent.denominator
        if prime != _PI and abs(whole) * prime.bit_length() <= _MOST_BITS:
            rational *= Fraction(prime) ** whole
            exponent -= whole
        if exponent:
            kept[prime] = exponent
    if _bits(rational) > 4 * _MOST_BITS:
        raise UnknownError
    return Constant(rational, tuple(sorted(kept.items())))


def _without(rational: Fraction, primes: set[int]) -> tuple[Fraction, dict[int, int]]:
    """A rational without these primes, and the exponents that they had in it."""
    parts, exponents = [rational.numerator, rational.denominator], dict.fromkeys(primes, 0)
    for place, sign in ((0, 1), (1, -1)):
        for prime in primes:
            while parts[place] % prime == 0:
                parts[place] //= prime
                exponents[prime] += sign
    return Fraction(*parts), exponents


def _factors(value: Fraction) -> list[tuple[int, int]]:
    """Primes of a positive fraction with their exponents."""
    found = []
    for part, sign in ((value.numerator, 1), (value.denominator, -1)):
        if part > _LARGEST_FACTORED:
            raise UnknownError
        prime = 2
        while prime * prime <= part:
            times = 0
            while part % prime == 0:
                part //= prime
                times += 1
            if times:
                found.append((prime, sign * times))
            prime += 1 if prime == 2 else 2
        if part > 1:
            found.append((part, sign))
    return found


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _small(value: Constant, most: int) -> int:
    number = value.multiplied_out()
    if number.denominator > 1 or not 0 <= number <= most:
        raise UnknownError
    return int(number)

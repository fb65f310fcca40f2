"""Whether a message left this process: what every transport here says when there is no answer."""


class NotSent(Exception):
    """Nothing reached the other side: no effect."""


class NotAnswered(Exception):
    """It was sent, or partly, and no answer came back: the effect is unknown."""

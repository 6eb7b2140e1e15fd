"""Messages that met no subscriber: who is told, and who is not."""

from gateway.bus.unheard import REMEMBERED, UnheardInbox

NO_RESPONDERS = b"NATS/1.0 503\r\n\r\n"


class Told:
    """Counts its calls."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_its_subjects_are_below_the_prefix_and_differ() -> None:
    inbox, other = UnheardInbox("gw"), UnheardInbox("gw")
    subjects = [inbox.expect(Told()), inbox.expect(Told()), other.expect(Told())]

    assert len(set(subjects)) == 3
    assert inbox.subject != other.subject
    for subject in subjects[:2]:
        head, _, tail = subject.rpartition(".")
        assert f"{head}.*" == inbox.subject
        assert head.startswith("gw.unheard.")
        assert tail.isdigit()


def test_the_sender_is_told_once() -> None:
    inbox, told, other = UnheardInbox("gw"), Told(), Told()
    subject = inbox.expect(told)
    inbox.expect(other)
    inbox.answered(subject, NO_RESPONDERS)
    inbox.answered(subject, NO_RESPONDERS)

    assert (told.times, other.times) == (1, 0)


def test_what_does_not_say_that_nobody_is_there_is_no_such_answer() -> None:
    for headers in (b"", b"NATS/1.0\r\n\r\n", b"NATS/1.0 408\r\n\r\n", b"x 503\r\n\r\n"):
        inbox, told = UnheardInbox("gw"), Told()
        inbox.answered(inbox.expect(told), headers)

        assert told.times == 0


def test_an_answer_nobody_waits_for_is_passed_over() -> None:
    UnheardInbox("gw").answered("gw.unheard.x.1", NO_RESPONDERS)


def test_the_oldest_are_forgotten_when_there_are_too_many() -> None:
    inbox, first, second, last = UnheardInbox("gw"), Told(), Told(), Told()
    subjects = [inbox.expect(first), inbox.expect(second)]
    for _ in range(REMEMBERED - 2):
        inbox.expect(Told())
    subjects.append(inbox.expect(last))
    for subject in subjects:
        inbox.answered(subject, NO_RESPONDERS)

    assert (first.times, second.times, last.times) == (0, 1, 1)

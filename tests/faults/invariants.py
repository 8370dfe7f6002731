"""What must hold whatever breaks. Each takes a Scenario that has come to rest and returns its complaints; scenarios,
storms and the soak use the same ones."""


def no_session_lost(run):
    """Every session has its token again."""
    return [f"lost: {session.user}, {answer.status} {answer.error}" for session, answer in run.last_words.items()
            if not answer.good]


def only_renewals_in_flight_lost(run):
    """Lost at most: sessions whose rotated token went down with a killed worker or a broken answer. Nobody can save
    those."""
    return [f"lost: {session.user}" for session in run.lost() if session.name not in run.record.in_flight_to_the_end()]


def lost_are_the_doomed(run):
    """Lost is who has to be, and nobody else: the new token went down with a killed worker."""
    lost, doomed = {session.name: session.user for session in run.lost()}, run.record.doomed()
    return [f"lost: {lost[name]}" for name in lost.keys() - doomed] + [f"not lost: {name}" for name in doomed - lost.keys()]


def who_is_lost_hears_so(run):
    return [f"{session.user} hears {answer.status} {answer.error}" for session, answer in run.last_words.items()
            if not answer.good and not answer.asks_for_a_login]


def no_refresh_token_twice(run):
    """Unless the first call was lost on the way."""
    return [f"sent again: a token of {run.record.owners[token]}" for token in run.record.tokens_sent_twice()]


def one_call_at_a_time(run):
    """No refresh token is sent while its first call may still succeed, and nothing old is stored over something new."""
    return run.record.violations


def only_retryable_503(run):
    """A failure is a 503 to try again; 401 only for a session that is lost."""
    lost = set(run.lost())
    return [f"{answer.route} of {answer.session.user}: {answer.status} {answer.error} after {answer.seconds:.1f} s"
            for answer in run.answers if not answer.good and not answer.retryable and
            not (answer.asks_for_a_login and answer.session in lost)]


def no_cookie_cleared(run):
    return [f"{answer.route} of {answer.session.user}: {answer.status} with Set-Cookie" for answer in run.answers
            if answer.sets_cookie]


def answered_within(seconds):
    def everybody_answered(run):
        return [f"{answer.route}: {answer.status} after {answer.seconds:.2f} s" for answer in run.answers
                if answer.seconds > seconds]
    return everybody_answered


ALWAYS = (only_renewals_in_flight_lost, no_refresh_token_twice, one_call_at_a_time, only_retryable_503,
          no_cookie_cleared)

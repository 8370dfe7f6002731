/* The renewal protocol of cgi/flows/renewal.c, cgi/flows/renewal_lead.c and cgi/store/store_lease.c, for one session:
 * three requests in two workers (the third in either). R1 to R6 are the steps of cgi/flows/renewal.h. Each
 * Lua script is one inline here; each atomic block is what happens between two waits of a fiber.
 *
 * What may go wrong: a worker is killed between any two steps and starts anew; Redis is away for a while, and single
 * commands besides are lost before they were done, after they were done, or are done much later; Spotify fails, or its
 * answer is lost; any fiber stalls for any time. Spotify rotates the refresh token, or does not, as it likes.
 *
 * Time: a call may succeed at Spotify until its deadline, also when its worker was killed. A lease outlives the
 * deadline of a call that was begun in time; its holder knows by its own clock when too little of it is left. Nothing
 * else is assumed of the order in which things run out. An error, or a connection that breaks, is the end of the call
 * at Spotify, too: CALL_GOES_ON shows what else could happen.
 *
 * What must hold, each an assertion or formula below:
 *   once          no refresh token is sent while an earlier call with it may still succeed
 *   unused        nor after it was replaced, unless the new one was lost with a worker or an answer, or could not be
 *                 written before the lease ran out
 *   never_older   what is stored is never older than what was stored before
 *   kept          who lets go of new tokens has seen them, or newer ones, in the store
 *   given_back    a worker that lives leaves no lease behind
 *   every_end     every request ends, and every kept result is stored
 *
 * Faults that check.py builds in, each a macro: NO_FENCING (only the lease guards a commit), BLIND_COMMIT (nothing
 * does), SHORT_LEASE (it may run out during the call), NO_CLOCK (its holder does not look whether it lasts),
 * BLIND_RELEASE (whoever has the lease), LEASE_LET_GO (between the two writes of renewal_write), RESULT_THROWN_AWAY
 * (when Redis does not take it), EARLIER_WINS (no second write), LEASE_LEFT (by who came too late), WAITER_LOOKS_ONCE
 * (and then waits for new tokens only), CALL_GOES_ON.
 *
 * Left out: end_script (it needs two refusals five minutes apart, or an age of six months), logout, and that who waits
 * for a lease gives up at last: here it has to do without. */

#define REQUESTS 3
#define WORKERS 2
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef OUTAGES
#define OUTAGES 1 /* times that Redis is away for a while */
#endif
#ifndef LOSSES
#define LOSSES 1 /* commands that are lost singly */
#endif
#define NOBODY REQUESTS

mtype = { NO_ANSWER, DONE, TAKEN, NEWER, HELD, FAILED }; /* what the sender of a command learns */
mtype = { NOTHING, TAKE, COMMIT, MARK, RELEASE, RELEASE_FAILED }; /* commands that may be done late */
mtype = { NO_MATTER, IN_TIME, TOO_LATE }; /* for a call, by its worker's clock */
mtype = { IDLE, SENT, GOOD, REFUSED, ERROR, OVER }; /* a call to Spotify; OVER: no answer in time */

/* ---- Redis ---- */

byte stored_generation = 1;
byte stored_token = 1; /* refresh tokens are numbered as Spotify makes them */
byte stored_by = NOBODY;
bool stored_suspect;
byte lease = NOBODY; /* a request stands for the owner that it drew: none takes a lease twice */
bool lease_failed;   /* the value is "!" and the owner */
bool is_away;
byte outages, losses;
mtype late = NOTHING;
byte late_by, late_generation, late_token;

/* ---- Spotify ---- */

byte valid_token = 1;
mtype call[REQUESTS] = IDLE;
byte call_token[REQUESTS];
byte answer_token[REQUESTS];
bool is_excused; /* nobody can know that the stored token was replaced */

#define IN_FLIGHT(r) (call[r] != IDLE && call[r] != OVER)
#define CALLED_WITH(r, token) (IN_FLIGHT(r) && call_token[r] == token)

/* ---- the workers ---- */

byte worker[REQUESTS];
byte leader[WORKERS] = NOBODY; /* the renewal in the worker's table */
bool is_kept[WORKERS];         /* it is done, and its result unsaved */
bool has_result[REQUESTS];     /* a refresh token that is new, in the hands of this fiber */
mtype clock[REQUESTS] = NO_MATTER; /* of one that is about to call: does its lease last for the call? */
bool has_begun[REQUESTS], has_ended[REQUESTS], is_dead[REQUESTS];
byte crashes;

#define ALL_ENDED (has_ended[0] && has_ended[1] && has_ended[2] && !is_kept[0] && !is_kept[1])

ltl every_end { <> ALL_ENDED }

/* ---- the scripts of store_lease.c ---- */

/* Of use within one atomic block only. */
hidden mtype answer;
hidden byte found_generation, found_token, found_owner, found_by;
hidden byte found_suspect;

#define IS_FREE(owner) (lease == NOBODY || lease == owner || lease_failed)

inline free_lease()
{
    lease = NOBODY;
    lease_failed = false
}

/* take_script, R2 and R3 */
inline take(owner, seen, waited)
{
    if
    :: stored_generation != seen -> answer = NEWER
    :: stored_generation == seen && lease != NOBODY && !lease_failed -> answer = HELD; found_owner = lease
    :: stored_generation == seen && lease != NOBODY && lease_failed && lease == waited -> answer = FAILED
    :: else ->
        lease = owner;
        lease_failed = false;
        found_token = stored_token;
        found_suspect = stored_suspect;
        answer = TAKEN
    fi
}

/* commit_script with new tokens, R5 */
inline commit(owner, expected, token)
{
    if
#ifdef BLIND_COMMIT
    :: false -> skip
#elif defined(NO_FENCING)
    :: !IS_FREE(owner) ->
        found_generation = stored_generation;
        found_token = stored_token;
        found_by = stored_by;
        answer = NEWER
#else
    :: stored_generation != expected ->
        found_generation = stored_generation;
        found_token = stored_token;
        found_by = stored_by;
        answer = NEWER
#endif
    :: else ->
        assert(token >= stored_token && expected + 1 > stored_generation); /* never_older */
        stored_generation = expected + 1;
        stored_token = token;
        stored_by = owner;
        stored_suspect = false;
        if
        :: IS_FREE(owner) -> free_lease()
        :: else
        fi;
        answer = DONE
    fi
}

/* commit_script with the old tokens and a mark */
inline mark(owner, expected)
{
    if
    :: stored_generation != expected -> answer = NEWER
    :: stored_generation == expected && !IS_FREE(owner) -> answer = HELD
    :: else ->
        stored_suspect = true;
        free_lease();
        answer = DONE
    fi
}

/* release_script */
inline release(owner, failed)
{
    if
#ifdef BLIND_RELEASE
    :: lease != NOBODY && !lease_failed ->
#else
    :: lease == owner && !lease_failed ->
#endif
        if
        :: failed -> lease_failed = true
        :: else -> free_lease()
        fi
    :: else
    fi;
    answer = DONE
}

/* store_get_session */
inline load()
{
    found_generation = stored_generation;
    found_token = stored_token;
    found_suspect = stored_suspect;
    answer = DONE
}

/* redis_eval: what becomes of one command. Its sender's next steps, up to where the fiber waits again, follow in the
 * same atomic block: between the two only a crash could tell the difference, and it takes both. */
#define COMMAND(script, kind, generation, token)                \
    if                                                          \
    :: !is_away -> script                                       \
    :: is_away || losses < LOSSES ->                            \
        if                                                      \
        :: is_away                                              \
        :: else -> losses++                                     \
        fi;                                                     \
        answer = NO_ANSWER                                      \
    :: losses < LOSSES ->                                       \
        losses++;                                               \
        script;                                                 \
        answer = NO_ANSWER                                      \
    :: losses < LOSSES && late == NOTHING && kind != NOTHING -> \
        losses++;                                               \
        late = kind;                                            \
        late_by = me;                                           \
        late_generation = generation;                           \
        late_token = token;                                     \
        answer = NO_ANSWER                                      \
    fi

/* ---- one request, and the fibers that it leaves behind ---- */

/* end() of renewal.c: the waiters of this worker are woken, since they watch leader and is_kept. */
inline end_request()
{
    has_ended[me] = true;
    if
    :: leader[worker[me]] == me -> leader[worker[me]] = NOBODY
    :: else
    fi
}

inline end_call(r)
{
    call[r] = IDLE;
    call_token[r] = 0;
    answer_token[r] = 0
}

/* The requests of one worker are alike, so they begin in their order. */
#define MAY_BEGIN(r) (r == 0 || worker[r] != worker[r - 1] || has_begun[r - 1])

proctype Request(byte me)
{
    byte seen, waited = NOBODY, token, new_token;
    {
        /* R1: session_load_fresh. A token of generation 1 has expired, a newer one may have. R2: join. */
        atomic {
            MAY_BEGIN(me);
            has_begun[me] = true;
            COMMAND(load(), NOTHING, 0, 0);
            seen = found_generation;
            if
            :: answer == NO_ANSWER -> goto finish
            :: answer == DONE && (seen > 1 || found_suspect) -> goto finish
            :: answer == DONE && leader[worker[me]] == NOBODY -> leader[worker[me]] = me
            :: answer == DONE && leader[worker[me]] != NOBODY -> waited = leader[worker[me]]; goto waiting
            fi
        }

        /* R2, R3: take_lease */
    look:
        atomic {
            COMMAND(take(me, seen, waited), TAKE, seen, 0);
            if
            :: answer == TAKEN -> waited = NOBODY; token = found_token; clock[me] = IN_TIME
            :: answer == NEWER || answer == FAILED -> goto finish /* R6 */
            :: answer == HELD ->
                waited = found_owner;
#ifdef WAITER_LOOKS_ONCE
                stored_generation != seen;
#endif
                goto look
            :: answer == NO_ANSWER -> end_request(); goto leftover
            fi;
            if
            :: found_suspect -> clock[me] = NO_MATTER; goto give_back /* renewal_was_refused_just_now */
            :: true /* or a minute ago */
            fi
        }

        /* R4: call_spotify. The look at the clock is as good as at the same time as the call: the call's own time
         * begins with it. */
        atomic {
            if
#ifndef NO_CLOCK
            :: clock[me] == TOO_LATE -> clock[me] = NO_MATTER; goto give_back
            :: clock[me] == IN_TIME ->
#else
            :: true ->
#endif
                assert(!CALLED_WITH(0, token) && !CALLED_WITH(1, token) && !CALLED_WITH(2, token)); /* once */
                assert(token == valid_token || is_excused); /* unused */
                clock[me] = NO_MATTER;
                call_token[me] = token;
                call[me] = SENT
            :: true -> clock[me] = NO_MATTER; goto give_back_failed /* backoff_check */
            fi
        }
        atomic {
            if
            :: call[me] == GOOD ->
                new_token = answer_token[me];
                has_result[me] = new_token != token;
                end_call(me)
            :: call[me] == REFUSED -> end_call(me); goto refused
#ifdef CALL_GOES_ON
            :: call[me] == SENT -> goto give_back_failed
#endif
            :: call[me] == ERROR || call[me] == OVER -> end_call(me); goto give_back_failed
            fi
        }

        /* R5: renewal_write, called by commit, and by save_until_taken when it comes round again. The look of
         * is_earlier_answer is one with the commit that it follows. */
    write:
        atomic {
            COMMAND(commit(me, seen, new_token), COMMIT, seen, new_token);
            if
            :: answer == DONE
            :: answer == NEWER && found_by == me /* is_written */
            :: answer == NEWER && found_by != me ->
                if
#ifndef EARLIER_WINS
                :: found_token == token && new_token != token ->
#ifdef LEASE_LET_GO
                    release(me, false);
#endif
                    seen = found_generation;
                    goto write
#endif
                :: else
                fi
            :: answer == NO_ANSWER ->
#ifdef RESULT_THROWN_AWAY
                skip
#else
                is_kept[worker[me]] = true;
                has_ended[me] = true;
                goto write
#endif
            fi;
            assert(stored_token >= new_token); /* kept */
            has_result[me] = false;
            if
            :: stored_by == me -> stored_by = NOBODY
            :: else
            fi;
            if
            :: leader[worker[me]] == me -> is_kept[worker[me]] = false
            :: else
            fi;
            if
#ifndef LEASE_LEFT
            :: answer == NEWER && found_by != me -> goto give_back
#endif
            :: else -> assert(lease != me || lease_failed); goto finish /* given_back */
            fi
        }

        /* judge_refusal, mark_suspect */
    refused:
        atomic {
            COMMAND(load(), NOTHING, 0, 0);
            if
            :: answer == NO_ANSWER || found_generation != seen -> goto give_back
            :: else
            fi
        }
        atomic {
            COMMAND(mark(me, seen), MARK, seen, 0);
            if
            :: answer == NO_ANSWER -> end_request(); goto leftover
            :: answer == NEWER || answer == HELD -> goto give_back
            :: answer == DONE -> assert(lease != me || lease_failed); goto finish /* given_back */
            fi
        }

        /* release of renewal_lead.c */
    give_back:
        atomic {
            COMMAND(release(me, false), RELEASE, 0, 0);
            goto given_back
        }
    give_back_failed:
        atomic {
            COMMAND(release(me, true), RELEASE_FAILED, 0, 0);
    given_back:
            end_request();
            if
            :: answer == NO_ANSWER -> goto leftover
            :: else -> assert(lease != me || lease_failed); goto gone /* given_back */
            fi
        }

        /* release_leftover */
    leftover:
        atomic {
            COMMAND(release(me, false), RELEASE, 0, 0);
            if
            :: answer == NO_ANSWER -> goto leftover
            :: else -> goto gone
            fi
        }

        /* R6: wait_for_leader */
    waiting:
        atomic {
            leader[worker[me]] != waited || is_kept[worker[me]];
    finish:
            end_request()
        }
    gone:
        skip
    } unless { is_dead[me] }
}

/* ---- everything else ---- */

inline crash_one(r, w)
{
    if
    :: worker[r] == w && has_begun[r] ->
        is_dead[r] = true;
        has_ended[r] = true;
        is_excused = is_excused || has_result[r];
        has_result[r] = false;
        clock[r] = NO_MATTER;
        if
        :: call[r] == OVER -> end_call(r)
        :: else
        fi
    :: else
    fi
}

inline crash(w)
{
    crashes++;
    leader[w] = NOBODY;
    is_kept[w] = false;
    crash_one(0, w);
    crash_one(1, w);
    crash_one(2, w)
}

/* A command whose sender has given up reaches Redis. */
inline do_late()
{
    if
    :: late == TAKE -> take(late_by, late_generation, NOBODY)
    :: late == COMMIT -> commit(late_by, late_generation, late_token)
    :: late == MARK -> mark(late_by, late_generation)
    :: late == RELEASE -> release(late_by, false)
    :: late == RELEASE_FAILED -> release(late_by, true)
    fi;
    late = NOTHING;
    late_by = 0;
    late_generation = 0;
    late_token = 0
}

#define SPOTIFY(r)                                                                   \
    :: atomic { call[r] == SENT && call_token[r] == valid_token ->                   \
        if                                                                           \
        :: valid_token++                                                             \
        :: true                                                                      \
        fi;                                                                          \
        answer_token[r] = valid_token;                                               \
        call[r] = GOOD }                                                             \
    :: atomic { call[r] == SENT && call_token[r] != valid_token -> call[r] = REFUSED } \
    :: atomic { call[r] == SENT -> call[r] = ERROR }                                 \
    :: atomic { IN_FLIGHT(r) ->                                                      \
        is_excused = is_excused || call[r] == GOOD && answer_token[r] != call_token[r]; \
        call[r] = OVER;                                                              \
        if                                                                           \
        :: is_dead[r] -> end_call(r)                                                 \
        :: else                                                                      \
        fi }

#ifdef SHORT_LEASE
#define OUTLASTED(r) false
#else
#define OUTLASTED(r) IN_FLIGHT(r)
#endif

#define LEASE_OUT(r)                                         \
    :: atomic { lease == r && !lease_failed && !OUTLASTED(r) -> \
        is_excused = is_excused || has_result[r];            \
        if                                                   \
        :: clock[r] == IN_TIME -> clock[r] = TOO_LATE        \
        :: else                                              \
        fi;                                                  \
        free_lease() }

active proctype World()
{
    atomic {
        if
        :: worker[2] = 0
        :: worker[2] = 1
        fi;
        run Request(0);
        run Request(1);
        run Request(2)
    }
end:
    do
    SPOTIFY(0)
    SPOTIFY(1)
    SPOTIFY(2)
    LEASE_OUT(0)
    LEASE_OUT(1)
    LEASE_OUT(2)
    :: atomic { lease_failed -> free_lease() }
    :: atomic { late != NOTHING && !is_away -> do_late() }
    :: atomic { outages < OUTAGES && !is_away -> outages++; is_away = true }
    :: atomic { is_away -> is_away = false }
    :: atomic { crashes < CRASHES -> crash(0) }
    :: atomic { crashes < CRASHES -> crash(1) }
    od
}

/* The protocol of park and hold, for one dedup key: two copies of an event, two instances, Postgres, Kafka.
 * README.md beside this file says it in words; `run` checks it, and that each protection is needed (-DNO_…).
 *
 * Budgets of faults: -DPG= server outages, -DSESSION= lost sessions, -DKAFKA= outages, -DDELAY= missed deadlines
 * while Kafka is up, -DCRASH= crashes. Everything ends: budgets are spent, then both servers stay up. */
/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PG
#define PG 0
#endif
#ifndef SESSION
#define SESSION 0
#endif
#ifndef KAFKA
#define KAFKA 0
#endif
#ifndef DELAY
#define DELAY 0
#endif
#ifndef CRASH
#define CRASH 0
#endif
#ifndef TRIES
#define TRIES 2 /* a copy is sent again once after 503 or a cut connection */
#endif

/* Actors: 0 and 1 are what instance 0 and 1 do with a delivery, 2 and 3 their drainers. A lock's owner is actor + 1. */
#define INSTANCE(a) ((a) & 1)

byte pg_budget = PG, session_budget = SESSION, kafka_budget = KAFKA, delay_budget = DELAY, crash_budget = CRASH;

/* Postgres. What a transaction does shows at its commit; before, only its locks do. */
mtype = { NONE, OPEN, LOST }; /* LOST: rolled back, the client may not know yet */
mtype tx[4] = NONE;
bool pg_up = true;
bool claim = false;
byte claim_by, row_by, hold_by, mark_by;
byte receipts;
bool row = false;        /* webhook_outbox: the payload is parked */
bool row_undecided;      /* a record of it may be in the topic behind row_from */
byte row_from, row_attempt;
byte hold_offset, mark_offset;
bool purged = false;

/* Kafka. topic, held, marks: how many records of the key each topic has. */
bool kafka_up = true;
byte topic, held, marks;
mtype = { IDLE, QUEUED, FLYING, WRITTEN };
mtype wire[4] = IDLE;    /* an actor's record on its way to the main topic */
byte orphans;            /* records in flight that nobody waits for any more: written later, or never */

/* Instances. */
bool busy[2];
bool holding[2];         /* the Postgres breaker is open */
bool parking[2];         /* the Kafka breaker is open */
bool window[4];          /* a drainer has noted its attempt and is about to send */
byte copies_left = 2;

/* Ghosts: nothing reads them but assertions. */
bool promised;           /* some copy was answered 2xx */
bool sent[4];            /* the open transaction's record may be in Kafka */
byte gap;                /* whose transaction (actor + 1) is lost while its record may be in the topic, and not claimed again yet */
bool excused;            /* an exception of promise 3 came to pass */

#define DURABLE (topic > 0 || row || held > hold_offset)
#define CHECK assert(!promised || DURABLE); assert(purged || receipts == claim)

inline write_topic() {
    topic++;
    assert(topic <= 1 || excused) /* promise 3 */
}

/* The session of `a` ends: Postgres rolls back. */
inline lose(a) {
    if
    :: claim_by == a + 1 ->
        claim_by = 0;
        if
        :: sent[a] ->
            if :: gap > 0 && gap != a + 1 -> excused = true :: else fi; /* two such records */
            gap = a + 1
        :: else
        fi
    :: else
    fi;
    if :: row_by == a + 1 -> row_by = 0 :: else fi;
    if :: hold_by == a + 1 -> hold_by = 0 :: else fi;
    if :: mark_by == a + 1 -> mark_by = 0 :: else fi;
    tx[a] = LOST
}

inline unlock(a) {
    if :: claim_by == a + 1 -> claim_by = 0 :: else fi;
    if :: row_by == a + 1 -> row_by = 0 :: else fi;
    if :: hold_by == a + 1 -> hold_by = 0 :: else fi;
    if :: mark_by == a + 1 -> mark_by = 0 :: else fi;
    tx[a] = NONE
}

/* COMMIT of `a`, whose effects the caller has just applied: the answer comes, or is lost with the session. */
inline answer_commit(a, ok) {
    CHECK;
    if
    :: ok = true
    :: session_budget > 0 -> session_budget--; ok = false
    fi;
    unlock(a)
}

inline commit_claim(a) {
    if :: claim_by == a + 1 -> claim = true; receipts++; gap = 0 :: else fi
}

inline park_row(undecided, from) {
    assert(!row); /* a second row would be a double */
    row = true; row_undecided = undecided; row_from = from; row_attempt = 0
}

/* rd_kafka_purge(): what was queued is surely not sent, what was in flight is undecided. */
inline abandon(a, undecided) {
    if
    :: wire[a] == FLYING -> orphans++; undecided = true
    :: wire[a] == WRITTEN -> undecided = true
    :: else -> undecided = false
    fi;
    wire[a] = IDLE
}

#define DEADLINE (!kafka_up || delay_budget > 0)
inline spend_delay() {
    if :: kafka_up -> delay_budget-- :: else fi
}

/* Another copy has been published, or is about to be. */
#define TAKEN (topic > 0 || claim || claim_by > 0 || gap > 0)

/* An exception only if a copy comes while the gap is open. */
inline new_claim(a) {
    claim_by = a + 1;
    if :: gap > 0 -> excused = true :: else fi
}

/* One copy of the event and the sender behind it. */
proctype Copy() {
    byte tries = 0, me = 0, from = 0;
    bool ok, undecided;

deliver:
    atomic {
        ok = false; undecided = false; from = 0;
        if
        :: !busy[0] -> me = 0
        :: !busy[1] -> me = 1
        fi;
        busy[me] = true
    };
begin:
    atomic {
        sent[me] = false;
        if
        :: holding[me] -> goto hold
        :: !holding[me] && pg_up -> tx[me] = OPEN
        fi
    };
    atomic { /* INSERT … ON CONFLICT DO NOTHING waits for who holds the key */
        if
        :: tx[me] == LOST -> tx[me] = NONE; holding[me] = true; goto hold
        :: tx[me] == OPEN && claim_by == 0 ->
            if
            :: claim -> unlock(me); assert(DURABLE); goto accepted /* promise 2 */
            :: else -> new_claim(me)
            fi
        fi
    };
    atomic {
        if
        :: parking[me] -> goto park
        :: else ->
            from = topic; wire[me] = QUEUED; sent[me] = true;
            /* Postgres has rolled back already and this instance has not heard of it yet. */
            if
            :: tx[me] == LOST && TAKEN -> excused = true
            :: tx[me] == LOST && !TAKEN -> gap = me + 1
            :: else
            fi
        fi
    };
publishing:
    atomic {
        if
        :: wire[me] == WRITTEN -> wire[me] = IDLE; goto commit
        :: DEADLINE ->
            spend_delay(); parking[me] = true; abandon(me, undecided); sent[me] = undecided;
#ifdef NO_STATUS
            undecided = false;
#endif
            goto park
        :: tx[me] == LOST -> tx[me] = NONE; goto lost_unreported
        :: crash_budget > 0 -> crash_budget--; goto crash
        fi
    };
park:
    atomic {
        if
        :: tx[me] == OPEN ->
            commit_claim(me); park_row(undecided, from); answer_commit(me, ok)
        :: tx[me] == LOST -> tx[me] = NONE; ok = false
        fi;
#ifdef NO_WAIT_FOR_PARK
        ok = true;
#endif
        if
        :: ok -> goto accepted
        :: !ok && undecided -> holding[me] = true; excused = true; goto refused /* both are away */
        :: !ok && !undecided -> holding[me] = true; goto hold
        fi
    };
commit:
    atomic {
        if
        :: tx[me] == OPEN -> commit_claim(me); answer_commit(me, ok)
        :: tx[me] == LOST -> tx[me] = NONE; ok = false
        :: crash_budget > 0 -> crash_budget--; goto crash
        fi;
        if :: ok -> goto accepted :: else -> goto lost_acknowledged fi
    };
lost_unreported: /* Postgres is lost before Kafka's report */
    atomic {
        holding[me] = true;
        if
        :: wire[me] == WRITTEN -> wire[me] = IDLE; goto lost_acknowledged
        :: DEADLINE ->
            spend_delay(); abandon(me, undecided);
            if
            :: undecided -> excused = true; goto refused
            :: else -> sent[me] = false; goto hold
            fi
        fi
    };
lost_acknowledged: /* claim again at once if only the session was lost, else leave a marker */
    atomic {
        if
        :: pg_up -> tx[me] = OPEN
        :: goto mark
        fi
    };
    atomic {
        if
        :: tx[me] == LOST -> tx[me] = NONE; goto mark
        :: tx[me] == OPEN && claim_by == 0 ->
            if
            :: claim -> unlock(me); assert(DURABLE); goto accepted
            :: else -> claim_by = me + 1
            fi
        fi
    };
    atomic {
        if
        :: tx[me] == OPEN -> commit_claim(me); answer_commit(me, ok)
        :: tx[me] == LOST -> tx[me] = NONE; ok = false
        fi;
        if :: ok -> goto accepted :: else fi
    };
mark:
    atomic {
        holding[me] = true;
        if
        :: kafka_up ->
#ifdef NO_MARKER
            held++; excused = false; gap = 0; /* the payload is held although the topic has it: no copy came, no excuse */
#else
            marks++;
#endif
            if :: !pg_up -> gap = 0 :: else fi; /* who sees Postgres return sees this marker first */
            goto accepted
        :: DEADLINE -> spend_delay(); excused = true; goto refused
        fi
    };
hold:
    atomic {
        if
        :: kafka_up -> held++; goto accepted
#ifdef NO_WAIT_FOR_HOLD
        :: goto accepted
#endif
        :: DEADLINE -> spend_delay(); goto refused
        :: crash_budget > 0 -> crash_budget--; goto crash
        :: DEADLINE && kafka_up -> spend_delay(); held++; goto refused /* written, but the report came too late */
        fi
    };
accepted:
    atomic {
        promised = true; CHECK;
        busy[me] = false; sent[me] = false; goto done
    };
crash:
    atomic { /* a restarted instance begins like one that lost Postgres: markers first */
        if :: tx[me] != NONE -> lose(me); tx[me] = NONE :: else fi;
        abandon(me, undecided);
        if :: tx[me + 2] == OPEN -> lose(me + 2) :: else fi;
        holding[me] = true; parking[me] = false
    };
refused:
    atomic {
        busy[me] = false; sent[me] = false; tries++;
        if :: tries < TRIES -> goto deliver :: else fi
    };
done:
    copies_left--
}

/* Of each instance, one: applies markers, moves what is held into the outbox, sends what is parked. */
proctype Drainer(byte a) {
    byte seen = 0, attempt = 0;
    bool ok, undecided;

#ifdef NO_SETTLING
#define SETTLED true
#else
/* 30 s of a broker that answers: nothing that was in flight can still be written. */
#define SETTLED (orphans == 0 && wire[2] == IDLE && wire[3] == IDLE && (!window[2] && !window[3] || delay_budget > 0))
#endif
#ifdef NO_ROW_LOCK
#define ROW_FREE true
#else
#define ROW_FREE (row_by == 0)
#endif
#ifdef NO_MARKERS_FIRST
#define MARKERS_DONE true
#else
#define MARKERS_DONE (mark_offset == marks)
#endif

rest:
    atomic {
        ok = false; seen = 0; attempt = 0; undecided = false; window[a] = false;
        if :: tx[a] == LOST -> tx[a] = NONE :: else fi
    };
end:
    if
    :: atomic { holding[INSTANCE(a)] && pg_up && kafka_up -> tx[a] = OPEN; seen = marks; goto leave }
    :: atomic { mark_offset < marks && mark_by == 0 && pg_up && kafka_up -> tx[a] = OPEN; mark_by = a + 1; goto marker }
    :: atomic { hold_offset < held && hold_by == 0 && pg_up && kafka_up && MARKERS_DONE ->
        tx[a] = OPEN; goto unhold }
    :: atomic { row && ROW_FREE && pg_up && kafka_up && (!row_undecided || SETTLED) ->
        if :: row_undecided && (window[2] || window[3]) && delay_budget > 0 -> delay_budget-- :: else fi;
        tx[a] = OPEN; row_by = a + 1; goto attempt_first }
    fi;
leave: /* hold mode ends when the markers that Postgres' return found are applied, by whomever */
    atomic {
        if
        :: tx[a] == LOST -> goto rest
        :: tx[a] == OPEN &&
#ifdef NO_MARKERS_BEFORE_LEAVING
            true
#else
            mark_offset >= seen
#endif
            -> holding[INSTANCE(a)] = false; tx[a] = NONE; goto rest
        :: tx[a] == OPEN && mark_offset < seen && mark_by == 0 -> mark_by = a + 1
        fi
    };
marker:
    atomic {
        if
        :: tx[a] == LOST -> goto rest
        :: tx[a] == OPEN && claim_by == 0 ->
            if :: !claim -> claim_by = a + 1 :: else fi
        fi
    };
    atomic {
        if
        :: tx[a] == LOST
        :: tx[a] == OPEN ->
#ifdef NO_CONFLICT_CLAUSE
            if :: claim -> receipts++ :: else fi;
#endif
            commit_claim(a); mark_offset++; answer_commit(a, ok)
        fi;
        goto rest
    };
unhold: /* one transaction, in Postgres alone: claim, receipt, outbox row, offset */
    atomic {
        if
        :: tx[a] == OPEN && hold_by == 0 && hold_offset < held -> hold_by = a + 1
        :: tx[a] == OPEN && hold_offset == held -> tx[a] = NONE; goto rest
        :: tx[a] == LOST -> goto rest
        fi
    };
#ifdef NO_COMMON_OFFSET
    atomic { if :: tx[a] == OPEN -> hold_offset++ :: else -> goto rest fi };
#endif
    atomic {
        if
        :: tx[a] == LOST -> goto rest
        :: tx[a] == OPEN && claim_by == 0 ->
            if :: !claim -> new_claim(a) :: else fi
        fi
    };
    atomic {
        if
        :: tx[a] == LOST
        :: tx[a] == OPEN ->
            if :: claim_by == a + 1 -> park_row(false, 0) :: else fi;
            commit_claim(a);
#ifndef NO_COMMON_OFFSET
            hold_offset++;
#endif
            answer_commit(a, ok)
        fi;
        goto rest
    };
attempt_first:
    atomic { /* read back */
        if
        :: tx[a] == LOST -> goto rest
        :: tx[a] == OPEN && kafka_up ->
            if
            :: !row -> unlock(a); goto rest
#ifndef NO_READ_BACK
            :: row && row_undecided && topic > row_from -> goto drained
            :: row && !(row_undecided && topic > row_from)
#else
            :: row
#endif
            fi
        fi
    };
    atomic { /* the attempt is noted and committed before anything is sent */
        if
        :: tx[a] == LOST -> goto rest
        :: tx[a] == OPEN && kafka_up ->
#ifdef NO_ATTEMPT
            wire[a] = QUEUED; goto sending
#else
            row_undecided = true; row_from = topic; row_attempt++; attempt = row_attempt;
            window[a] = true;
            answer_commit(a, ok);
            if :: ok :: else -> goto rest fi
#endif
        fi
    };
    atomic { /* lock it again, if it is still this attempt's */
        if
        :: !pg_up -> goto rest
        :: pg_up && (!row || !ROW_FREE) -> goto rest
        :: pg_up && row && ROW_FREE ->
            if
#ifndef NO_ATTEMPT_CHECK
            :: row_attempt != attempt -> goto rest
            :: row_attempt == attempt
#else
            :: true
#endif
                -> tx[a] = OPEN; row_by = a + 1; wire[a] = QUEUED; window[a] = false
            fi
        fi
    };
sending:
    atomic {
        if
        :: wire[a] == WRITTEN -> wire[a] = IDLE; parking[INSTANCE(a)] = false
        :: DEADLINE ->
            spend_delay(); abandon(a, undecided);
            if :: tx[a] == OPEN -> unlock(a) :: else fi;
            goto rest
        :: tx[a] == LOST -> abandon(a, undecided); goto rest
        fi
    };
drained:
    atomic {
        if
        :: tx[a] == LOST
        :: tx[a] == OPEN -> row = false; row_undecided = false; row_from = 0; row_attempt = 0; answer_commit(a, ok)
        fi;
        goto rest
    }
}

proctype Broker() {
    byte i;
end:
    do
    :: atomic { wire[0] == QUEUED -> wire[0] = FLYING }
    :: atomic { wire[1] == QUEUED -> wire[1] = FLYING }
    :: atomic { wire[2] == QUEUED -> wire[2] = FLYING }
    :: atomic { wire[3] == QUEUED -> wire[3] = FLYING }
    :: atomic { kafka_up && wire[0] == FLYING -> wire[0] = WRITTEN; write_topic() }
    :: atomic { kafka_up && wire[1] == FLYING -> wire[1] = WRITTEN; write_topic() }
    :: atomic { kafka_up && wire[2] == FLYING -> wire[2] = WRITTEN; write_topic() }
    :: atomic { kafka_up && wire[3] == FLYING -> wire[3] = WRITTEN; write_topic() }
    :: atomic { kafka_up && orphans > 0 -> orphans--; if :: write_topic() :: skip fi }
    od
}

proctype Faults() {
    byte i;
end:
    do
    :: atomic { pg_budget > 0 && pg_up ->
        pg_budget--; pg_up = false;
        for (i : 0 .. 3) { if :: tx[i] == OPEN -> lose(i) :: else fi };
        i = 0;
        /* Each connection is gone, also an idle one: whoever connects again begins with the markers. */
        holding[0] = true; holding[1] = true }
    :: atomic { !pg_up -> pg_up = true }
    :: atomic { kafka_budget > 0 && kafka_up -> kafka_budget--; kafka_up = false }
    :: atomic { !kafka_up -> kafka_up = true }
    :: atomic { session_budget > 0 && tx[0] == OPEN -> session_budget--; lose(0) }
    :: atomic { session_budget > 0 && tx[1] == OPEN -> session_budget--; lose(1) }
    :: atomic { session_budget > 0 && tx[2] == OPEN -> session_budget--; lose(2) }
    :: atomic { session_budget > 0 && tx[3] == OPEN -> session_budget--; lose(3) }
    od
}

#ifdef PURGE
/* The dedup window has passed since the last copy came. */
#ifdef NO_PURGE_GUARD
#define PURGEABLE true
#else
#define PURGEABLE (!row && hold_offset == held && mark_offset == marks)
#endif
proctype Purge() {
end:
    atomic { copies_left == 0 && claim && claim_by == 0 && PURGEABLE -> claim = false; purged = true }
}
#endif

/* When nothing can move any more: all that was promised is in the topic, nothing is left anywhere. */
proctype Rest() {
    timeout ->
    assert(pg_up && kafka_up && copies_left == 0);
    assert(!row && hold_offset == held && mark_offset == marks && orphans == 0);
    assert(!promised || topic > 0);
    assert(!holding[0] && !holding[1]);
    assert(claim_by == 0 && row_by == 0 && hold_by == 0 && mark_by == 0);
    assert(receipts <= 1)
}

init {
    atomic {
        run Broker(); run Faults(); run Copy(); run Copy(); run Drainer(2); run Drainer(3); run Rest();
#ifdef PURGE
        run Purge()
#endif
    }
}

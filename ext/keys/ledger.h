/* Rule of this folder (keys/): decide when the keys of a connection may and must
   change, and keep count; never wait, and know nothing of sockets.

   A ledger is what we keep beside a managed connection: its rules, how much its keys
   have been used, what its peer has done, and which events have not been reported yet.

   The ledger is attached to the SSL (SSL_set_ex_data()) and freed with it.  OpenSSL
   reports to it (reports.c).  The functions of counted_io.c count the data that is read
   and written.

   One thread at a time uses a ledger, as it does the connection.  Other threads may set
   `wanted_keys`, which is atomic, and may see what struct ku_view has.  Its owner writes
   that under the lock of the list, as the others read it; but what changes with each
   read and write without the lock, by KU_SHOW().  A ledger holds no Python objects:
   OpenSSL frees it in any thread, without the GIL. */
#ifndef PYKEYUPDATE_LEDGER_H
#define PYKEYUPDATE_LEDGER_H

#include "keys/reasons.h"
#include "openssl/outcome.h"
#include "openssl/module_state.h"

#include "system/atomic.h"
#include "system/clock.h"

#define KU_NO_LIMIT UINT64_MAX
#define KU_ANY_NUMBER UINT32_MAX

/* Each of these tables has a counterpart of the same names in pykeyupdate/.
   tests/test_tables.py compares the two, by way of calls/tables.c. */
/* clang-format off */

/* How often the peer may renegotiate: PeerLimits.renegotiation. */
#define KU_MODES(X)                   \
    X(KU_NEVER_RENEGOTIATE, never)  \
    X(KU_ONCE, once)                \
    X(KU_FREELY, freely)

/* RekeyPolicy and PeerLimits (pykeyupdate/_policy.py) in numbers.  Times are in
   microseconds, and KU_NEVER if they are off; `mode` is an enum ku_mode. */
#define KU_RULES(X)                 \
    X(NUMBER64, sent_records)       \
    X(NUMBER64, sent_bytes)         \
    X(NUMBER64, received_records)   \
    X(NUMBER64, received_bytes)     \
    X(TIME, age)                    \
    X(TIME, most_age)               \
    X(TIME, idle)                   \
    X(TIME, min_interval)           \
    X(TIME, key_update_window)      \
    X(TIME, renegotiation_window)   \
    X(TIME, renegotiation_time)     \
    X(TIME, session_ticket_window)  \
    X(NUMBER32, key_updates)        \
    X(NUMBER32, key_updates_in_a_row) \
    X(NUMBER32, renegotiations)     \
    X(NUMBER32, session_tickets)    \
    X(FRACTION, jitter)             \
    X(BYTE, aead_limit)             \
    X(BYTE, request_peer)           \
    X(BYTE, renegotiate)            \
    X(BYTE, mode)

typedef uint64_t ku_rule_NUMBER64;
typedef ku_time ku_rule_TIME;
typedef uint32_t ku_rule_NUMBER32;
typedef float ku_rule_FRACTION;
typedef unsigned char ku_rule_BYTE;

/* Events, as bits: the members of EventKind (pykeyupdate/_events.py), and the level at
   which they are logged. */
#define KU_EVENTS(X)                                             \
    X(KU_EVENT_UPDATE_SENT, 1 << 0, KEY_UPDATE_SENT, DEBUG)         \
    X(KU_EVENT_UPDATE_RECEIVED, 1 << 1, KEY_UPDATE_RECEIVED, DEBUG) \
    X(KU_EVENT_RENEGOTIATED, 1 << 2, RENEGOTIATED, INFO)            \
    X(KU_EVENT_PEER_REFUSED, 1 << 3, RENEGOTIATION_REFUSED, WARNING) \
    X(KU_EVENT_DEFERRED, 1 << 4, DEFERRED, DEBUG)                   \
    X(KU_EVENT_CUT_OFF, 1 << 5, CUT_OFF, WARNING)                   \
    X(KU_EVENT_IMPOSSIBLE, 1 << 6, IMPOSSIBLE, WARNING)              \
    X(KU_EVENT_FAILED, 1 << 7, FAILED_AFTER_UPDATE, WARNING)

/* What we count, for each connection and for the process: the fields of Counts
   (pykeyupdate/_stats.py), where each is described. */
#define KU_COUNTERS(X)                            \
    X(KU_COUNT_UPDATES_SENT, key_updates_sent)          \
    X(KU_COUNT_UPDATES_RECEIVED, key_updates_received)  \
    X(KU_COUNT_REQUESTS_SENT, requests_sent)            \
    X(KU_COUNT_REQUESTS_RECEIVED, requests_received)    \
    X(KU_COUNT_RENEGOTIATIONS, renegotiations)          \
    X(KU_COUNT_PEER_RENEGOTIATIONS, peer_renegotiations) \
    X(KU_COUNT_REFUSED, refused)                       \
    X(KU_COUNT_DEFERRED, deferred)                     \
    X(KU_COUNT_CUT_OFF, cut_off)                           \
    X(KU_COUNT_IMPOSSIBLE, impossible)                     \
    X(KU_COUNT_WRITES_REFUSED, writes_refused)             \
    X(KU_COUNT_FAILED_AFTER_UPDATE, failed_after_update)

/* clang-format on */

#define KU_MODE(number, name) number,
#define KU_RULE(kind, name) ku_rule_##kind name;
#define KU_EVENT(number, bit, name, level) number = bit,
#define KU_COUNTER(number, name) number,

enum ku_mode { KU_MODES(KU_MODE) };
struct ku_rules {
    KU_RULES(KU_RULE)
};
enum ku_event { KU_EVENTS(KU_EVENT) };
enum ku_count { KU_COUNTERS(KU_COUNTER) KU_COUNT_END };

#undef KU_MODE
#undef KU_RULE
#undef KU_EVENT
#undef KU_COUNTER

/* The keys of one direction: how much they have been used, and their limits. */
struct ku_keys {
    uint64_t records, bytes;
    ku_time since;
    uint64_t max_records, max_bytes;
    ku_time max_age;
};

/* What a connection's description names.  OpenSSL's ciphers are constants. */
struct ku_facts {
    const SSL_CIPHER *cipher; /* NULL before the first handshake */
    unsigned short version;   /* as SSL_version() */
    unsigned char is_server;
};

/* A server that has many connections has one of these for each, so keep it small. */
struct ku_ledger {
    struct ku_ledger *next, *previous; /* in the list, oldest first */
    uint64_t number;
    struct ku_rules rules;
    struct ku_facts facts;
    struct ku_keys sent, received;
    uint64_t cipher_records; /* what the cipher suite allows */
    ku_time last_update, last_io, last_data;
    ku_time updates_until, renegotiations_until, tickets_until, row_began;
    ku_time renegotiation_seen;  /* when we last looked at the one under way */
    ku_time renegotiation_taken; /* and the time that counts so far */
    uint64_t random;
    uint64_t options_before;
    const char *why_cut;   /* the limit that the peer exceeded, or NULL */
    ku_atomic wanted_keys; /* KU_WANTED*; set by other threads */
    uint32_t counts[KU_COUNT_END];
    uint32_t in_a_row;          /* the peer's key updates, no data between */
    uint32_t answers_due;       /* to our requests; they may still come */
    uint32_t max_fragment;      /* most plaintext in one record */
    uint32_t heard_before;      /* records received before our last KeyUpdate */
    int allowed;                /* depth of allow_renegotiation() */
    unsigned short events;      /* enum ku_event, not reported yet */
    unsigned char why_next;     /* enum ku_change, of the change that is scheduled */
    unsigned char why_changed;  /* of the last change */
    unsigned char why_due;      /* of the change that a policy wants */
    unsigned char unheard;      /* since our last KeyUpdate, unless records came */
    unsigned char connected;    /* the first handshake is complete */
    unsigned char renegotiates; /* a renegotiation is under way, and not refused */
    unsigned char by_peer;      /* the peer began the renegotiation under way */
    unsigned char requesting;   /* the KeyUpdate under way requests an answer */
    unsigned char request_outstanding; /* we requested the peer's; it has not come */
    unsigned char answer_owed;       /* the peer requested ours; it has not gone out */
    unsigned char is_shared;         /* a managed socket's: any thread may renew */
    unsigned char overuse_permitted; /* use the present keys without limit */
    unsigned char deferring;         /* new keys are due, and have had to wait */
    unsigned char impossible;        /* new keys were due, and are not possible */
    unsigned char obstacle;          /* enum ku_cause: obstacles.h */
    unsigned char inherited;       /* from the process that forked; not used here yet */
    unsigned char orphaned;        /* and a thread that is not here was using it */
    unsigned char has_callbacks;   /* _ssl stores what its context's callbacks raise */
    unsigned char older_exception; /* _ssl may store an exception of an earlier call */
    unsigned long busy_thread;     /* an SSLObject's: the thread that uses it, or 0 */
    unsigned long asking_thread;   /* an SSLObject's: the thread that asks what to do
                                    (on_impossible), or that reports an event of one
                                    that belongs to an asyncio transport; or 0 */
};

#endif

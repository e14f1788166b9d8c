/* What is kept beside a managed connection: its rules, how much its keys have been
   used, what its peer has done, and what is to be told.

   The ledger hangs on the SSL (SSL_set_ex_data()) and is freed with it.  OpenSSL tells
   it what happens through the info callback, which the ssl module does not use:
   every change of keys, whoever began it, and every renegotiation.  What data goes
   through is counted by whoever reads and writes (pump.c, managed.c).

   A peer that does too much is stopped here, inside the SSL_read() that takes its
   messages: SSL_set_shutdown(SSL_RECEIVED_SHUTDOWN) ends that call before the next
   record, and SSL_OP_NO_RENEGOTIATION refuses a ClientHello that is being read.

   Used by one thread at a time, as its connection, but for `wanted`; `can_renew` is
   changed and, by others, read under the lock of the list.  No Python objects: OpenSSL
   frees it in whatever thread, without the GIL. */
#ifndef PYKEYUPDATE_LEDGER_H
#define PYKEYUPDATE_LEDGER_H

#include "openssl/outcome.h"
#include "openssl/state.h"

#include "system/atomic.h"
#include "system/clock.h"

#define KU_NO_LIMIT UINT64_MAX
#define KU_ANY_NUMBER UINT32_MAX

enum ku_mode { KU_NEVER_RENEGOTIATE, KU_ONCE, KU_FREELY };

/* RekeyPolicy and PeerLimits (pykeyupdate/_policy.py) in numbers.  Times are in
   microseconds, KU_NEVER where they are off. */
struct ku_rules {
    uint64_t sent_records, sent_bytes;
    uint64_t received_records, received_bytes;
    ku_time age, idle, min_interval;
    ku_time key_update_window, renegotiation_window;
    uint32_t key_updates, key_updates_in_a_row, renegotiations;
    float jitter;
    unsigned char aead_limit, request_peer, renegotiate;
    unsigned char mode; /* enum ku_mode */
};

/* The keys of one direction: how much they have been used, and may be. */
struct ku_keys {
    uint64_t records, bytes;
    ku_time since;
    uint64_t max_records, max_bytes;
    ku_time max_age;
};

/* What has happened, as bits, as in pykeyupdate/_events.py. */
enum ku_event {
    KU_SENT_UPDATE = 1,
    KU_RECEIVED_UPDATE = 2,
    KU_RENEGOTIATED = 4,
    KU_REFUSED_PEER = 8,
    KU_DEFERRED = 16,
    KU_CUT = 32,
    KU_IMPOSSIBLE = 64,
};

/* What is counted, for each connection and for the process, as in _stats.py. */
enum ku_count {
    KU_UPDATES_SENT,
    KU_UPDATES_RECEIVED,
    KU_REQUESTS_SENT,
    KU_REQUESTS_RECEIVED,
    KU_RENEGOTIATIONS,
    KU_PEER_RENEGOTIATIONS,
    KU_REFUSALS,  /* of the peer's renegotiations */
    KU_DEFERRALS, /* changes of keys that had to wait */
    KU_CUTS,
    KU_IMPOSSIBLES, /* connections that cannot have the new keys they shall */
    KU_COUNTS,
};

/* One is kept for each connection of a server that may have many: it is small. */
struct ku_ledger {
    struct ku_ledger *next, *previous; /* of all there are, the oldest first */
    uint64_t number;
    struct ku_rules rules;
    struct ku_keys sent, received;
    uint64_t cipher_records; /* what the cipher suite is good for */
    ku_time last_update, last_io;
    ku_time updates_until, renegotiations_until, row_began;
    uint64_t random;
    uint64_t options_before;
    const char *why_cut; /* what the peer did too often, or NULL */
    ku_atomic wanted;    /* KU_WANTED*: asked for by another thread */
    uint32_t counts[KU_COUNTS];
    uint32_t in_a_row;           /* key updates of the peer's without data */
    uint32_t answers;            /* to requests of ours, that may still come */
    uint32_t fragment;           /* the most data in one record */
    int allowed;                 /* depth of allow_renegotiation() */
    unsigned char events;        /* that nobody has been told of */
    unsigned char connected;     /* a first handshake is complete */
    unsigned char renegotiates;  /* a renegotiation is under way, and not refused */
    unsigned char by_peer;       /* the renegotiation under way */
    unsigned char requesting;    /* the KeyUpdate under way asks for an answer */
    unsigned char outstanding;   /* ours has been asked for, and not come */
    unsigned char is_shared;     /* a managed socket's: new keys need no owner */
    unsigned char excused;       /* the present keys may be used on and on */
    unsigned char deferring;     /* new keys are due, and had to wait */
    unsigned char impossible;    /* new keys were due, and cannot be had */
    unsigned char can_renew;     /* connected, by a version whose keys may change */
    unsigned char inherited;     /* from the process that forked, and not used here */
    unsigned char orphaned;      /* and a thread that is not here was using it */
    unsigned char has_callbacks; /* of ssl's, whose exceptions _ssl keeps */
    unsigned char keeps_older;   /* and perhaps one of an earlier call's */
    unsigned long busy;          /* an SSLObject's: the thread that uses it, or 0 */
    unsigned long asking;        /* of one: that asks what to do (on_impossible), or
                                   tells an event in asyncio's hands; or 0 */
};

enum { KU_NOT_WANTED, KU_WANTED, KU_WANTED_OF_BOTH, KU_UNLESS_INHERITED = 4 };

/* Learn the functions, and get a place beside every SSL; once in a process.  -1
   where OpenSSL has none. */
int ku_ledger_prepare(const struct ku_libssl *libssl);

/* Open the ledger of a connection that has not begun; NULL without memory. */
struct ku_ledger *ku_ledger_open(SSL *ssl, const struct ku_rules *rules);

/* The ledger of a connection, or NULL where it is not managed. */
struct ku_ledger *ku_ledger_of(const SSL *ssl);

/* What a call passes along of an _ssl._SSLSocket's connection; 0 where that has none
   (see ku_sslobject_ssl()). */
int ku_ledger_tls(const ku_state *state, PyObject *sslobj, struct ku_tls *tls);

/* Data has gone out, all of it or some; has come in, and if it began a record. */
void ku_ledger_count_sent(struct ku_ledger *ledger, size_t bytes);
void ku_ledger_count_received(struct ku_ledger *ledger, size_t bytes, int begins);

/* SSL_peek() of a byte, which drives a handshake past application data: the record that
   it begins is counted.  The ledger may be NULL. */
int ku_ledger_peek(const struct ku_tls *tls);

/* Use an SSLObject, in a critical section, by one thread at a time and not in a
   callback of its own; KU_OK, or refused.  And let others. */
struct ku_outcome ku_ledger_occupy(struct ku_ledger *ledger);
void ku_ledger_vacate(struct ku_ledger *ledger);

/* New keys are due and cannot be had; 1 the first time. */
int ku_ledger_note_impossible(struct ku_ledger *ledger);

/* Take what is to be told. */
int ku_ledger_take_events(struct ku_ledger *ledger);

/* A change of keys had to wait. */
void ku_ledger_note_deferral(struct ku_ledger *ledger);

/* The clock of ages and windows, which tests can put forward. */
ku_time ku_ledger_clock(void);
void ku_ledger_advance_clock(ku_time by);

/* Let peers renegotiate (1), and forbid it again as it was (-1). */
void ku_ledger_allow_renegotiation(const struct ku_tls *tls, int change);

/* Want new keys, and no less than before; and no longer what was wanted (`fulfilled`),
   unless more has been wanted since. */
void ku_ledger_want_keys(struct ku_ledger *ledger, long wanted);
void ku_ledger_fulfil_wish(struct ku_ledger *ledger, long fulfilled);

/* Want new keys of up to `most` connections after number `*last`, which is changed;
   how many those were.  Managed sockets are passed over, and what is inherited, has no
   keys yet or can have no others. */
size_t ku_ledger_want_keys_of_all(uint64_t *last, size_t most, long wanted);

/* Of the whole process: what has been counted, how many there are and were. */
void ku_ledger_totals(uint64_t counts[KU_COUNTS], uint64_t *open, uint64_t *opened);

#endif

/* The threads in a managed socket: what they share, how they come in and go, who has
   which role, and how one waits for another. */
#ifndef PYKEYUPDATE_THREADS_H
#define PYKEYUPDATE_THREADS_H

#include "keys/telling.h"
#include "streams/tlsbio.h"
#include "system/monitor.h"
#include "system/wire.h"

struct ku_pump {
    struct ku_monitor monitor;
    int receiving, sending, writing; /* some thread has the role */
    int users;                       /* threads in a call */
    ku_atomic closed;                /* by a thread of this process */
    ku_socket left_open;             /* the last user closes it, or KU_NO_SOCKET */
    int broken_by_fork;              /* another thread was in a step */
    int receive_error;               /* of a recv() whose caller had data to return */
    int send_error;                  /* of the send() that was the last */
    unsigned long writer;            /* the thread that has the role `writing` */
    unsigned long receptions;        /* how often something was; tells old from new */
    struct ku_buffer stash;          /* decrypted, before what OpenSSL has to give */
    int kept_byte; /* the socket still has a byte that is here already */
    ku_time kept_since;
    struct ku_buffer unsent; /* OpenSSL's output; the sender's */
    size_t sent_apart;       /* so much of that goes into a send() of its own */
    /* A write that was not completed must be repeated, as with OpenSSL: so much
       of it is encrypted, and this is what that was. */
    size_t accepted;
    uint32_t fingerprint;
    /* The fatal error that ended the connection: OpenSSL tells it once. */
    struct ku_outcome ended;
    struct ku_ledger *ledger; /* as old as the SSL; NULL: none is kept */
};

/* What became of a call. */
enum ku_progress {
    KU_DONE,
    KU_WANT_READ, /* it may not wait */
    KU_WANT_WRITE,
    KU_TIMED_OUT,
    KU_INTERRUPTED, /* by a signal: call again, it goes on where it was */
    KU_CLOSED_HERE, /* another thread closed the connection */
    KU_ENDED,       /* OpenSSL's outcome tells how */
    KU_SYSTEM,      /* the system's error tells how */
    KU_NO_NEW_KEYS, /* keys must be changed and cannot: outcome tells why.  Once that
                        is excused, call again, and it goes on where it was */
    KU_STASH_FULL,  /* so much data is in front that it is not read any further */
    KU_REFUSED,     /* nothing was done: outcome tells why */
    KU_NO_MEMORY,
};

/* One thread's call, from begin to end; between these it is in the monitor. */
struct ku_call {
    struct ku_pump *pump;
    struct ku_tls tls;
    ku_socket socket;
    int blocks; /* the socket is one that blocks, and it may */
    ku_time deadline;
    struct ku_tlsbio *bio;
    int drains; /* if it closes the socket it takes what has come before */
    int receives, sends, writes; /* the roles it has */
    ku_time signals_seen;        /* when signal handlers had their last chance, */
    int signals_just_seen;       /* and that nothing has been waited for since */
    int error;                   /* KU_SYSTEM */
    struct ku_outcome outcome;   /* KU_ENDED, KU_NO_NEW_KEYS, KU_REFUSED; of a step */
    struct ku_news news;         /* of the ledger, at its end */
};

/* Enter the monitor; 0, or -1 where this thread is in a step of another connection and
   would have to wait for too long. */
int ku_threads_enter(struct ku_call *call);
void ku_threads_exit(struct ku_call *call);

/* Leave the monitor, and close the socket if the connection was closed and this is the
   last of the threads in it. */
void ku_threads_leave(struct ku_pump *pump, int drains);

/* Leave the monitor in the middle of a call, for signal handlers to be run, and
   come back.  They may read, and send what is scheduled: only who writes goes on
   writing. */
void ku_threads_pause(struct ku_call *call);
void ku_threads_resume(struct ku_call *call);

/* KU_INTERRUPTED where signal handlers have had no chance for a while: a signal that
   comes between two waits interrupts neither.  Otherwise KU_DONE. */
enum ku_progress ku_threads_let_signals(struct ku_call *call);

/* Wait for an announcement; KU_DONE when there was one.  `unready`: what to say where
   the call may not wait. */
enum ku_progress ku_threads_wait_for_news(struct ku_call *call,
                                          enum ku_progress unready);

/* Take a role, of which `taken` is the pump's mark and `mine` the call's; wait for it
   where another thread has it.  And give it up, if it is this call's. */
enum ku_progress ku_threads_take_role(struct ku_call *call, int *taken, int *mine,
                                      enum ku_progress unready);
void ku_threads_give_up_role(struct ku_pump *pump, int *taken, int *mine);

/* Has a thread of this process closed the connection? */
int ku_threads_are_closed(const struct ku_call *call);

#endif

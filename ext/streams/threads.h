/* Rule of this folder (streams/): how managed connections read, write and wait; whether
   the keys must change is for keys/ to say.

   The threads in a managed socket: what they share, how they enter and leave, which
   role each has, and how one waits for another. */
#ifndef PYKEYUPDATE_THREADS_H
#define PYKEYUPDATE_THREADS_H

#include "keys/telling.h"
#include "streams/tlsbio.h"
#include "system/monitor.h"
#include "system/wire.h"

struct ku_pump {
    struct ku_monitor monitor;
    unsigned long receiving, sending, writing; /* the thread that has the role, or 0 */
    int users;                                 /* threads in a call */
    ku_atomic closed;         /* a thread of this process has closed it */
    ku_socket left_open;      /* the last user closes it, or KU_NO_SOCKET */
    int broken_by_fork;       /* another thread was in a step */
    int receive_error;        /* of a recv() whose call had data to return */
    int send_error;           /* of a send() that failed for good */
    unsigned long receptions; /* counts what was received; tells old from new */
    struct ku_buffer stash;   /* decrypted data that comes before OpenSSL's */
    int kept_byte;            /* we have peeked at a byte that is still in the socket */
    ku_time kept_since;
    struct ku_buffer unsent; /* output taken from OpenSSL; belongs to the sender */
    size_t sent_apart;       /* so many bytes of that go into a send() of their own */
    /* As with OpenSSL, a write that was not completed must be repeated: so many bytes
       of it are encrypted, and this identifies them. */
    size_t accepted;
    uint32_t fingerprint;
    /* The fatal error that ended the connection: OpenSSL reports it only once. */
    struct ku_outcome ended;
    struct ku_ledger *ledger; /* lives as long as the SSL; NULL: there is none */
};

/* The result of a call, or of a part of one. */
enum ku_progress {
    KU_DONE,
    KU_WANT_READ, /* it needs to receive, and may not wait */
    KU_WANT_WRITE,
    KU_TIMED_OUT,
    KU_INTERRUPTED, /* by a signal: call again, and it goes on where it was */
    KU_CLOSED_HERE, /* another thread closed the connection */
    KU_ENDED,       /* call->outcome tells how */
    KU_SYSTEM,      /* call->error tells how */
    KU_NO_NEW_KEYS, /* the keys must change and cannot: call->outcome tells why.  If the
                       write may go on, call again, and it goes on where it was */
    KU_STASH_FULL,  /* so much data comes first that nothing more is read */
    KU_REFUSED,     /* nothing was done: call->outcome tells why */
    KU_NO_MEMORY,
};

/* One call of one thread.  From ku_threads_enter() to ku_threads_exit() the thread is
   in the monitor, except while it waits or moves bytes. */
struct ku_call {
    struct ku_pump *pump;
    struct ku_tls tls;
    ku_socket socket;
    int blocks; /* the socket blocks, and the call has no deadline */
    ku_time deadline;
    struct ku_tlsbio *bio;
    int drains; /* before it closes the socket it drops what has come */
    int receives, sends, writes; /* the roles that this call has */
    ku_time signals_seen;        /* when signal handlers last had a chance to run, */
    int signals_just_seen;       /* and whether the call has not waited since */
    int error;                   /* KU_SYSTEM */
    struct ku_outcome outcome;   /* KU_ENDED, KU_NO_NEW_KEYS, KU_REFUSED, or a step's */
    struct ku_report report;     /* of the ledger, at the end of the call */
};

/* Enter the monitor.  Returns 0, or -1 if this thread is in a step of another
   connection and would have to wait too long.  Its counterpart, ku_threads_exit(),
   gives up the call's roles, collects its events and leaves. */
int ku_threads_enter(struct ku_call *call);
void ku_threads_exit(struct ku_call *call);

/* Leave the monitor.  If the connection was closed and this is the last thread in it,
   close the socket; with `drains`, first drop what has come. */
void ku_threads_leave(struct ku_pump *pump, int drains);

/* Leave the monitor in the middle of a call, so that signal handlers can run, and come
   back.  The handlers may read, and send what is scheduled; only a write keeps its
   role. */
void ku_threads_pause(struct ku_call *call);
void ku_threads_resume(struct ku_call *call);

/* Returns KU_INTERRUPTED if signal handlers have had no chance to run for a while: a
   signal that comes between two waits interrupts neither.  Otherwise KU_DONE. */
enum ku_progress ku_threads_let_signals(struct ku_call *call);

/* Wait for an announcement.  Returns KU_DONE after one, KU_CLOSED_HERE, KU_INTERRUPTED,
   or at the deadline KU_TIMED_OUT (`unready` if the call may not wait). */
enum ku_progress ku_threads_wait_for_news(struct ku_call *call,
                                          enum ku_progress unready);

/* Take a role that no other thread has; or wait for it and return KU_DONE, or as
   ku_threads_wait_for_news().  `taken` is the pump's field for the role, `mine` the
   call's.  ku_threads_give_up_role() gives it up, if this call has it. */
void ku_threads_take_free_role(unsigned long *taken, int *mine);
enum ku_progress ku_threads_take_role(struct ku_call *call, unsigned long *taken,
                                      int *mine, enum ku_progress unready);
void ku_threads_give_up_role(struct ku_pump *pump, unsigned long *taken, int *mine);

/* Has a thread of this process closed the connection? */
int ku_threads_are_closed(const struct ku_call *call);

#endif

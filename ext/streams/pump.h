/* A connection that several threads may use at the same time.

   OpenSSL allows one thread at a time in a connection, and Python's ssl lets two
   in: it gives OpenSSL the socket, so a thread that waits for data waits inside
   SSL_read(), and nothing can keep it out of another's SSL_write() without keeping
   that one waiting as well.  Here OpenSSL reads and writes memory (tlsbio.c) and
   never waits.  So:

   - every call of OpenSSL is a short step, and steps are taken one at a time, in a
     monitor;
   - waiting, recv() and send() happen outside it.  One thread at a time receives
     (`receiving`) and one sends (`sending`), so that bytes go in and come out in
     order.  Who finds the role taken waits for news, in the monitor's list;
   - a reader sends what its own steps have made (a KeyUpdate message, an alert)
     only as far as the socket takes it at once, and where a sender is at work
     leaves it to that one.  So a reader never waits for a peer that does not read;
   - a writer has a role for the whole of its data (`writing`): two threads' data
     never mix.

   Renegotiation (TLS 1.2 and below): from a ClientHello on, OpenSSL breaks a
   connection that writes while data arrives (UNEXPECTED_RECORD).  Writers are held
   until the new handshake is done, which goes on by reading: inside a reader's
   call, or else the writer reads, and data that comes first is kept for the next
   reader (`stash`).  Of that the last byte stays in the socket (`kept`): a reader
   may be waiting in select().

   Nothing here is a Python object and nothing here needs the GIL; the caller must
   not hold it.  Callbacks of the ssl module's may run Python code in a step. */
#ifndef PYKEYUPDATE_PUMP_H
#define PYKEYUPDATE_PUMP_H

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
    unsigned long received;          /* how often something was; tells old from new */
    struct ku_buffer stash;          /* decrypted, before what OpenSSL has to give */
    int kept; /* the socket still has a byte that is here already */
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
    const struct ku_libssl *libssl;
    SSL *ssl;
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

/* 0, or -1 without memory. */
int ku_pump_create(struct ku_pump *pump);
void ku_pump_destroy(struct ku_pump *pump);

/* In a child process after fork(): of all threads only this one exists. */
void ku_pump_forked(struct ku_pump *pump);

/* Enter the monitor; 0, or -1 where this thread is in a step of another connection and
   would have to wait for too long. */
int ku_pump_begin(struct ku_call *call);
void ku_pump_end(struct ku_call *call);

/* Leave the monitor, and close the socket if the connection was closed and this is the
   last of the threads in it. */
void ku_pump_leave(struct ku_pump *pump, int drains);

/* Leave the monitor in the middle of a call, for signal handlers to be run, and
   come back.  They may read, and send what is scheduled: only who writes goes on
   writing. */
void ku_pump_pause(struct ku_call *call);
void ku_pump_resume(struct ku_call *call);

/* KU_INTERRUPTED where signal handlers have had no chance for a while: a signal that
   comes between two waits interrupts neither.  Otherwise KU_DONE. */
enum ku_progress ku_pump_let_signals(struct ku_call *call);

/* Take a step, of which call->outcome tells what came; KU_REFUSED where that is not
   KU_OK.  Received data that stands in its way is put aside, for the next reader. */
enum ku_progress ku_pump_take_step(struct ku_call *call, ku_step step,
                                   intptr_t argument);

/* Read some bytes, at least one; write all of them, n = 0 included. */
enum ku_progress ku_pump_read(struct ku_call *call, char *data, size_t room,
                              size_t *got);
enum ku_progress ku_pump_write(struct ku_call *call, const char *data, size_t n);

/* Complete a handshake, or what is scheduled; send a close_notify and wait for the
   peer's. */
enum ku_progress ku_pump_handshake(struct ku_call *call);
enum ku_progress ku_pump_shutdown(struct ku_call *call);

/* Schedule new keys if they are due, and send what that makes as far as the socket
   takes it at once. */
enum ku_progress ku_pump_renew(struct ku_call *call);

/* Send all that OpenSSL has written; or as far as the socket takes it at once, unless
   another thread sends. */
enum ku_progress ku_pump_send(struct ku_call *call);
void ku_pump_flush(struct ku_call *call);

/* Receive something, or wait until another thread has, unless something has been
   since `received` was read.  OpenSSL has not seen it yet.  `keeps`: what comes may
   be data, and ku_pump_settle() follows. */
enum ku_progress ku_pump_receive(struct ku_call *call, unsigned long received,
                                 int keeps);

/* Let OpenSSL take its steps with what has been received, and keep the data.  What
   it writes is not sent yet. */
enum ku_progress ku_pump_settle(struct ku_call *call);

/* Is a renegotiation under way, during which nothing may be written? */
int ku_pump_is_renegotiating(const struct ku_call *call);

/* How many bytes can be read without receiving any. */
size_t ku_pump_pending(struct ku_call *call);

/* Close the connection for all threads, from begin to end of a call.  Threads that
   are in one are woken, and the last of all that are, maybe this, closes the
   socket. */
void ku_pump_close(struct ku_call *call);

#endif

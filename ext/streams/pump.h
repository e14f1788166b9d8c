/* A connection that several threads may use at the same time.

   OpenSSL allows one thread at a time in a connection, but Python's ssl lets two in: it
   gives OpenSSL the socket, so a thread that waits for data waits inside SSL_read(),
   and nothing can keep it out of another thread's SSL_write() without making that
   thread wait as well.  Here OpenSSL reads and writes memory (tlsbio.c) and never
   waits.  So:

   - every call of OpenSSL is a short step, and steps are taken one at a time, in a
     monitor;
   - waiting, recv() and send() happen outside the monitor.  One thread at a time
     receives (`receiving`) and one sends (`sending`), so that bytes go in and come out
     in order.  A thread that finds the role taken waits in the monitor for news;
   - a reader sends what its own steps have made (a KeyUpdate message, an alert) only
     as far as the socket takes it at once, and leaves it to the sender if there is
     one.  So a reader never waits for a peer that does not read;
   - a writer has a role for all of its data (`writing`): the data of two threads is
     never mixed.

   Renegotiation (TLS 1.2 and below): from a ClientHello on, OpenSSL breaks a connection
   that writes while data arrives (UNEXPECTED_RECORD).  So writers wait until the new
   handshake is complete.  Reading drives that handshake: a reader's call does it, or
   else the writer reads, and keeps data that comes first for the next reader (`stash`).
   The last byte of that data stays in the socket (`kept_byte`), because a reader may be
   waiting in select().

   Nothing here is a Python object and nothing here needs the GIL; the caller must not
   hold it.  Callbacks of the ssl module may run Python code in a step. */
#ifndef PYKEYUPDATE_PUMP_H
#define PYKEYUPDATE_PUMP_H

#include "streams/threads.h"

/* Returns 0, or -1 if out of memory. */
int ku_pump_create(struct ku_pump *pump);
void ku_pump_destroy(struct ku_pump *pump);

/* Call this in a child process after fork(), where only this thread exists. */
void ku_pump_forked(struct ku_pump *pump);

/* Take a step and store its outcome in call->outcome.  Returns KU_DONE, KU_REFUSED if
   the outcome is not KU_OK, or KU_NO_MEMORY.  If unread data blocks the step, first
   moves that data to the stash, for the next reader. */
enum ku_progress ku_pump_take_step(struct ku_call *call, ku_step step,
                                   intptr_t argument);

/* ku_pump_read() reads at least one byte; `got` becomes how many.  ku_pump_write()
   writes all n bytes; n may be 0. */
enum ku_progress ku_pump_read(struct ku_call *call, char *data, size_t room,
                              size_t *got);
enum ku_progress ku_pump_write(struct ku_call *call, const char *data, size_t n);

/* ku_pump_handshake() completes a handshake, or performs what is scheduled.
   ku_pump_shutdown() sends a close_notify and waits for the peer's. */
enum ku_progress ku_pump_handshake(struct ku_call *call);
enum ku_progress ku_pump_shutdown(struct ku_call *call);

/* Schedule new keys if they are due, and send the message as far as the socket takes it
   at once. */
enum ku_progress ku_pump_renew(struct ku_call *call);

/* Get new keys if ours are old and nobody uses them, and send what the socket takes,
   without waiting.  Returns KU_DONE, or KU_NO_NEW_KEYS.  `wait` becomes the time until
   the next such call, or KU_NEVER. */
enum ku_progress ku_pump_rotate(struct ku_call *call, ku_time *wait);

/* End the connection, whose keys are too old, for all threads. */
enum ku_progress ku_pump_give_up(struct ku_call *call);

/* If the counter pump->receptions still equals `received`, receive once, or wait until
   the thread that receives has done so.  OpenSSL has not seen the bytes yet.  `keeps`:
   data may come, and the caller calls ku_pump_settle() next. */
enum ku_progress ku_pump_receive(struct ku_call *call, unsigned long received,
                                 int keeps);

/* Let OpenSSL take its steps with what has been received, and keep the data in the
   stash.  What OpenSSL writes is not sent yet. */
enum ku_progress ku_pump_settle(struct ku_call *call);

/* Is a renegotiation under way, during which nothing may be written? */
int ku_pump_is_renegotiating(const struct ku_call *call);

/* How many bytes can be read without receiving any? */
size_t ku_pump_pending(struct ku_call *call);

/* Close the connection for all threads.  The caller is in a call (entered, not yet
   left).  Wakes the threads that are in a call; the last one to leave, perhaps this
   one, closes the socket. */
void ku_pump_close(struct ku_call *call);

/* The same for a thread that could not enter, because another is inside for long.  That
   one, when it leaves, wakes the others. */
void ku_pump_close_from_outside(struct ku_call *call);

#endif

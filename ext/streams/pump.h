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
   reader (`stash`).  Of that the last byte stays in the socket (`kept_byte`): a reader
   may be waiting in select().

   Nothing here is a Python object and nothing here needs the GIL; the caller must
   not hold it.  Callbacks of the ssl module's may run Python code in a step. */
#ifndef PYKEYUPDATE_PUMP_H
#define PYKEYUPDATE_PUMP_H

#include "streams/threads.h"

/* 0, or -1 without memory. */
int ku_pump_create(struct ku_pump *pump);
void ku_pump_destroy(struct ku_pump *pump);

/* In a child process after fork(): of all threads only this one exists. */
void ku_pump_forked(struct ku_pump *pump);

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

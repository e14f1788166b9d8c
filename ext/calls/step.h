/* How a call goes, from a Python connection to an outcome.

   The connection's _ssl._SSLSocket is found (Python code may run).  It is held in
   a critical section, where the SSL* is taken and proved, the questions are asked
   and OpenSSL is called: one step, without Python code of ours and, but for
   sub-interpreters before 3.12 (module.c), without releasing the GIL.  The pointer
   does not outlive it.  Then, out of the section, a value or an exception is made.

   A critical section (a no-op under the GIL) excludes the attached parts of
   _ssl's methods, as in _ssl's verify_client_post_handshake().  Nothing can
   exclude a thread that is inside a detached SSL_read() or SSL_write(): two
   threads may not use one ssl.SSLSocket at the same time, with us or without.
   Of a managed socket the Duplex is found, whose monitor keeps all others out. */
#ifndef PYKEYUPDATE_STEP_H
#define PYKEYUPDATE_STEP_H

#include "openssl/errors.h"
#include "streams/pump.h"
#include "openssl/state.h"

/* Constants of OpenSSL's public headers that more than one file needs, the same
   from 1.1.1 to 4.0. */
#define SSL_KEY_UPDATE_NONE (-1)
#define SSL_KEY_UPDATE_NOT_REQUESTED 0
#define SSL_KEY_UPDATE_REQUESTED 1
#define SSL_SENT_SHUTDOWN 1
#define SSL_RECEIVED_SHUTDOWN 2
#define SSL_OP_NO_RENEGOTIATION ((uint64_t)1 << 30)
#define SSL_WRITING 2
#define TLS1_2_VERSION 0x0303
#define TLS1_3_VERSION 0x0304

/* Hold an _ssl._SSLSocket: a no-op under the GIL before 3.13, and in the limited API
   before 3.15 (which free-threaded builds before 3.15 lack). */
#ifdef Py_BEGIN_CRITICAL_SECTION
#  define KU_LOCK_OBJECT(sslobj) Py_BEGIN_CRITICAL_SECTION(sslobj)
#  define KU_UNLOCK_OBJECT() Py_END_CRITICAL_SECTION()
#else
#  define KU_LOCK_OBJECT(sslobj) {
#  define KU_UNLOCK_OBJECT() }
#endif

struct ku_outcome ku_ok(int value);
struct ku_outcome ku_refused(enum ku_refusal refusal);
struct ku_outcome ku_refused_because(enum ku_refusal refusal, const char *detail);

/* What a failed SSL_read() or the like means (KU_IO), with the error queue emptied.
   In the thread that called it, before anything else of OpenSSL's. */
struct ku_outcome ku_failed_io(const struct ku_libssl *libssl, SSL *ssl);

/* An entry that somebody has left in this thread's error queue would make a fatal
   error of "wants to read".  Looking is cheaper than clearing. */
void ku_clear_errors(const struct ku_libssl *libssl);

/* Find, hold and prove the connection and take the step.  0 and its value, or -1
   with an exception that names `function` and the connection.  Of a managed connection
   it is refused in the middle of another call. */
int ku_take_step(ku_state *state, const char *function, PyObject *conn, ku_step step,
                 intptr_t argument, int *value);

/* The same for a step that makes what is to be sent: a managed socket sends it.  (Over
   memory BIOs whoever moves the bytes does.)  A callback's exception comes out. */
int ku_take_step_and_send(ku_state *state, const char *function, PyObject *conn,
                          ku_step step, intptr_t argument, int *value);

/* As ku_take_step(), for what calls nothing of OpenSSL's that reads, writes or
   schedules: also in the middle of another call, of a thread or a callback. */
int ku_take_step_anytime(ku_state *state, const char *function, PyObject *conn,
                         ku_step step, intptr_t argument, int *value);

#endif

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

#include "openssl/outcome.h"
#include "openssl/module_state.h"

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

/* Rule of this folder (calls/): what Python calls; each function parses its arguments,
   takes a step on a connection, and returns a value or raises.

   How a call gets from a Python connection to its result.

   First it finds the connection's _ssl._SSLSocket (Python code may run).  It locks that
   object in a critical section, takes and proves the SSL*, checks the preconditions and
   calls OpenSSL: this is one step, without Python code of ours and without releasing
   the GIL (except in sub-interpreters before 3.12, see module.c).  The pointer does not
   outlive the step.  Then, outside the section, it returns a value or raises an
   exception.

   A critical section (a no-op under the GIL) excludes the attached parts of _ssl's
   methods, as in _ssl's verify_client_post_handshake().  Nothing can exclude a thread
   that is inside a detached SSL_read() or SSL_write(): two threads may not use one
   ssl.SSLSocket at the same time, with us or without.

   A managed socket has a Duplex in place of the _SSLSocket.  The Duplex takes the step
   in its monitor, which keeps all other threads out, and without the GIL if it does
   more than look. */
#ifndef PYKEYUPDATE_STEP_H
#define PYKEYUPDATE_STEP_H

#include "openssl/outcome.h"
#include "openssl/module_state.h"

/* Find, lock and prove the connection, and take the step.  Returns 0 and sets `value`,
   or -1 with an exception that names `function` and the connection.  Refused on a
   managed connection in the middle of another call.  Needs the GIL, as do the
   others. */
int ku_take_step(ku_state *state, const char *function, PyObject *conn, ku_step step,
                 intptr_t argument, int *value);

/* The same for a step that makes something to send: a managed socket sends it.  (Over
   memory BIOs, whoever moves the bytes sends it.)  Raises a callback's exception. */
int ku_take_step_and_send(ku_state *state, const char *function, PyObject *conn,
                          ku_step step, intptr_t argument, int *value);

/* Like ku_take_step(), for a step that calls nothing of OpenSSL's that reads, writes or
   schedules: allowed also in the middle of another call, of a thread or a callback. */
int ku_take_step_anytime(ku_state *state, const char *function, PyObject *conn,
                         ku_step step, intptr_t argument, int *value);

#endif

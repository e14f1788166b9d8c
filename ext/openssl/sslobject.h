/* From a Python connection to OpenSSL's SSL*. */
#ifndef PYKEYUPDATE_SSLOBJECT_H
#define PYKEYUPDATE_SSLOBJECT_H

#include "openssl/state.h"

/* Make a connection with _ssl and prove on it, without dereferencing anything,
   that struct PySSLSocket begins as we think.  Returns a new reference to that
   connection, or NULL with ImportError. */
PyObject *ku_sslobject_probe(ku_state *state, PyObject *_ssl);

/* Does an _ssl._SSLSocket work over memory BIOs, not a socket? */
int ku_sslobject_is_bio(const ku_state *state, PyObject *sslobj);

/* The _ssl._SSLSocket inside `conn`, or the Duplex that holds it, as a new
   reference, or NULL with an exception that names `function`.  May run Python
   code. */
PyObject *ku_sslobject_of(ku_state *state, const char *function, PyObject *conn);

/* The SSL* of an _ssl._SSLSocket, or NULL where it has none or where it does not
   lead back to the object.  Runs no Python code and sets no exception.  The
   pointer is good for as long as the caller holds `sslobj`: SSL_free() is called
   by the object's deallocator and nowhere else. */
SSL *ku_sslobject_ssl(const ku_state *state, PyObject *sslobj);

#endif

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

/* What an object or its class itself has under a name, or NotImplemented; a new
   reference.  Its __getattr__() and __getattribute__() are not asked: what answers to
   every name (a remote proxy) is not to be called, and what forwards to a connection
   is none. */
PyObject *ku_own_attribute(PyObject *object, PyObject *name);

/* `conn`, or its `_sslobj`, if that is an _ssl._SSLSocket or a Duplex, or None; else
   NotImplemented.  A new reference, or NULL with an exception. */
PyObject *ku_sslobject_inside(ku_state *state, PyObject *conn);

/* The same, looking also for the connection inside a stream, a response, a client:
   that is found in Python (pykeyupdate/_finding.py), which may raise, and trusted
   no more than what a caller gives.  `holder` becomes a new reference to the object
   that was looked into last, or NULL. */
PyObject *ku_sslobject_search(ku_state *state, const char *function, PyObject *conn,
                              PyObject **holder);

/* The SSL* of an _ssl._SSLSocket, or NULL where it has none or where it does not
   lead back to the object.  Runs no Python code and sets no exception.  The
   pointer is good for as long as the caller holds `sslobj`: SSL_free() is called
   by the object's deallocator and nowhere else. */
SSL *ku_sslobject_ssl(const ku_state *state, PyObject *sslobj);

#endif

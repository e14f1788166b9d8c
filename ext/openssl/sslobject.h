/* From a Python connection to OpenSSL's SSL*. */
#ifndef PYKEYUPDATE_SSLOBJECT_H
#define PYKEYUPDATE_SSLOBJECT_H

#include "openssl/module_state.h"

/* Make a connection with _ssl and prove on it, without dereferencing anything, that
   struct PySSLSocket begins as we expect.  Returns a new reference to that connection,
   or NULL with an exception (ImportError if the layout differs). */
PyObject *ku_sslobject_probe(ku_state *state, PyObject *_ssl);

/* Does this _ssl._SSLSocket use memory BIOs rather than a socket? */
int ku_sslobject_is_bio(const ku_state *state, PyObject *sslobj);

/* What an object or its class itself has under a name, as a new reference; if there is
   nothing, an object that is no part of a connection; or NULL with an exception.  The
   class's __getattr__() and __getattribute__() are not called: an object that answers to
   every name (a remote proxy) must not be called, and one that forwards to a connection
   is no connection.  A property is called only on ssl's own classes and classes derived
   from them, as ssl's own code calls it. */
PyObject *ku_own_attribute(ku_state *state, PyObject *object, PyObject *name);

/* Returns `conn`, or its `_sslobj`, if that is an _ssl._SSLSocket or a Duplex; None if
   `_sslobj` is None; otherwise NotImplemented.  A new reference, or NULL with an
   exception. */
PyObject *ku_sslobject_inside(ku_state *state, PyObject *conn);

/* The same, but also look for the connection inside a stream, a response or a client.
   Python code does that search (pykeyupdate/_finding.py); it may raise, and we trust
   its result no more than what a caller passes.  Sets `holder` to a new reference to
   the object that was looked into last, or to NULL. */
PyObject *ku_sslobject_search(ku_state *state, const char *function, PyObject *conn,
                              PyObject **holder);

/* The SSL* of an _ssl._SSLSocket; NULL if it has none, or if the SSL does not lead back
   to the object.  Runs no Python code and sets no exception.  The pointer is valid as
   long as the caller holds a reference to `sslobj`: only the object's deallocator calls
   SSL_free(). */
SSL *ku_sslobject_ssl(const ku_state *state, PyObject *sslobj);

#endif

/* What help() says of each function.  First line: the signature that inspect
   reads.  Then why, what each side does, what goes on the wire and when, how it
   fails, threads, and the source. */
#ifndef PYKEYUPDATE_DOCSTRINGS_H
#define PYKEYUPDATE_DOCSTRINGS_H

#include <Python.h>

/* clang-format off */

#define CONN_DOC                                                              \
    "conn is an ssl.SSLSocket or ssl.SSLObject (or the _ssl._SSLSocket inside\n" \
    "one).\n"

#define THREADS_DOC                                                           \
    "Threads: call it from the thread that does this connection's I/O, or under\n" \
    "the lock that guards that I/O. OpenSSL allows one thread at a time in a\n" \
    "connection, and a thread that waits inside recv() is in it.\n"

#define REFUSED_DOC                                                           \
    "Refusals change nothing: the connection stays as it was. NotNowError means\n" \
    "try again after the next I/O, NotPossibleError means never on this\n"       \
    "connection; both are PyKeyUpdateError.\n"

PyDoc_STRVAR(key_update_doc,
"key_update($module, conn, /, update_type=KeyUpdateType.NOT_REQUESTED)\n"
"--\n"
"\n"
"Schedule a TLS 1.3 key update: new keys for what this side sends.\n"
"\n"
"Why: to bound how much is encrypted, or for how long, under one key. An\n"
"AES-GCM key must be replaced, or the connection closed, before 2**24.5 full\n"
"records (about 362 GiB); OpenSSL does not do it by itself. A key update gives\n"
"no forward secrecy within the connection: new keys derive from the old.\n"
"\n"
CONN_DOC
"update_type is KeyUpdateType.NOT_REQUESTED (only our sending keys; the\n"
"default, because some peers limit or refuse what they must answer) or\n"
"KeyUpdateType.REQUESTED (and the peer shall update its own).\n"
"\n"
"On the wire: nothing yet. The next send or recv, or do_handshake() now, sends\n"
"one KeyUpdate message (a 27 byte record with AES-GCM) and then changes the\n"
"sending key. It does not wait for the peer, who changes its receiving key when\n"
"it reads the message and, if requested, answers before its next data. Until\n"
"it is sent get_key_update_type() returns the type; version() returns None,\n"
"getpeercert() raises ValueError and unwrap() fails, as in any handshake. On a\n"
"non-blocking socket with a full send buffer do_handshake() raises\n"
"SSLWantWriteError, and calling it again finishes the update.\n"
"\n"
"How often: sparingly. At most one REQUESTED may be unanswered (RFC 9846\n"
"4.7.3); GnuTLS peers accept 8 updates a second, BoringSSL and rustls 32 in a\n"
"row, Mbed TLS none.\n"
"\n"
"Raises InvalidKeyUpdateTypeError (a ValueError) for NONE or any other value;\n"
"HandshakeNotDoneError before the handshake; WrongProtocolVersionError below\n"
"TLS 1.3; AlreadyPendingError while an update is scheduled, in the middle of\n"
"a post-handshake message, and for REQUESTED while we owe the peer an answer;\n"
"WritePendingError while a send that raised SSLWantWriteError is incomplete (not\n"
"of a managed SSLSocket: its message follows that data);\n"
"ReadPendingError (OpenSSL before 1.1.1l only) while received data is waiting;\n"
"CloseNotifyError after unwrap() began; KernelTLSError; ConnectionFailedError;\n"
"ConnectionClosedError; NotATLSConnectionError (a TypeError).\n"
REFUSED_DOC
"\n"
THREADS_DOC
"\n"
"Source: SSL_key_update(3), RFC 9846 sections 4.7.3 and 5.5.");

PyDoc_STRVAR(get_key_update_type_doc,
"get_key_update_type($module, conn, /)\n"
"--\n"
"\n"
"Return the pending key update's KeyUpdateType, or KeyUpdateType.NONE.\n"
"\n"
CONN_DOC
"\n"
"The type from key_update() until the message is built. NOT_REQUESTED also\n"
"when nobody here called anything: the peer has requested an update and our\n"
"answer goes out with the next send (recv and do_handshake() do not send it; a\n"
"send of b'' does, though Python 3.9 then raises SSLEOFError).\n"
"NONE means built, not sent: with a full send buffer on a\n"
"non-blocking socket the message waits until I/O stops raising\n"
"SSLWantWriteError. NONE on TLS 1.2 and below and before the handshake.\n"
"\n"
"On the wire: nothing. Raises ConnectionClosedError, NotATLSConnectionError\n"
"(a TypeError).\n"
"\n"
THREADS_DOC
"\n"
"Source: SSL_get_key_update_type(3).");

PyDoc_STRVAR(renegotiate_doc,
"renegotiate($module, conn, /)\n"
"--\n"
"\n"
"Schedule a renegotiation (TLS 1.2 and below): a new, full handshake.\n"
"\n"
"Why: new keys, with a new (EC)DHE exchange, on a protocol without key update;\n"
"or another client certificate. When not: where the peer may refuse. OpenSSL\n"
"ends a connection whose renegotiation is refused, on both sides, so this is\n"
"no question that can be asked politely. OpenSSL 3 servers refuse a client's\n"
"unless OP_ALLOW_CLIENT_RENEGOTIATION is set in their context's options.\n"
"\n"
CONN_DOC
"\n"
"On the wire: nothing yet. On a client the next I/O, or do_handshake() now,\n"
"sends a ClientHello that offers no session to resume; do_handshake() on a\n"
"blocking socket returns when the new handshake is complete. On a server it\n"
"sends a HelloRequest and do_handshake() returns at once; the client follows\n"
"when it next reads, and the new handshake runs inside our recv().\n"
"renegotiate_pending() is True until it is complete.\n"
"\n"
"Application data in flight: only recv() can drive a renegotiation past it. A\n"
"client that calls do_handshake() or send() while data from the server is on\n"
"its way loses the connection (UNEXPECTED_RECORD); where it has been received\n"
"and is unread the call is refused (ReadPendingError). Agree on a quiet\n"
"moment, or keep reading until renegotiate_pending() is False.\n"
"Afterwards the peer's certificate may be another one: look again.\n"
"\n"
"Raises HandshakeNotDoneError before the handshake (OpenSSL would send the\n"
"next data in plaintext); WrongProtocolVersionError on TLS 1.3;\n"
"AlreadyPendingError during a renegotiation; WritePendingError while a send\n"
"that raised SSLWantWriteError is incomplete (not of a managed SSLSocket: its\n"
"message follows that data); ReadPendingError on a client that has received data\n"
"and not read it; RenegotiationForbiddenError with OP_NO_RENEGOTIATION;\n"
"InsecureRenegotiationError without RFC 5746;\n"
"CloseNotifyError after either side's close_notify; KernelTLSError;\n"
"ConnectionFailedError; ConnectionClosedError; NotATLSConnectionError (a\n"
"TypeError).\n"
REFUSED_DOC
"\n"
THREADS_DOC
"\n"
"Source: SSL_renegotiate(3), RFC 5746, RFC 5246 section 7.4.1.");

PyDoc_STRVAR(renegotiate_abbreviated_doc,
"renegotiate_abbreviated($module, conn, /)\n"
"--\n"
"\n"
"Schedule a renegotiation that resumes the session where possible.\n"
"\n"
"As renegotiate(), but a client offers its current session, and a server that\n"
"agrees skips key exchange and certificates: new keys from the old master\n"
"secret, cheaper and without new (EC)DHE. Servers with\n"
"OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION do not agree. Called on a server it\n"
"is the same as renegotiate(): the client decides what it offers.\n"
"\n"
CONN_DOC
"\n"
"On the wire, errors and application data in flight: see renegotiate().\n"
"\n"
THREADS_DOC
"\n"
"Source: SSL_renegotiate_abbreviated(3), RFC 5746.");

PyDoc_STRVAR(renegotiate_pending_doc,
"renegotiate_pending($module, conn, /)\n"
"--\n"
"\n"
"Return whether a renegotiation has been scheduled and is not yet complete.\n"
"\n"
CONN_DOC
"\n"
"True from renegotiate() until the new handshake is complete. On a server that\n"
"includes the time until the client has followed our HelloRequest, which a\n"
"client may ignore for ever. True also during a renegotiation that the peer\n"
"began. False on TLS 1.3.\n"
"\n"
"On the wire: nothing. Raises ConnectionClosedError, NotATLSConnectionError\n"
"(a TypeError).\n"
"\n"
THREADS_DOC
"\n"
"Source: SSL_renegotiate_pending(3).");

PyDoc_STRVAR(secure_renegotiation_doc,
"secure_renegotiation($module, conn, /)\n"
"--\n"
"\n"
"Return whether the peer supports secure renegotiation (RFC 5746).\n"
"\n"
CONN_DOC
"\n"
"Where it is False renegotiate() is refused: such a renegotiation lets an\n"
"attacker put data in front of the client's (CVE-2009-3555). False before the\n"
"handshake, and on TLS 1.3, which has no renegotiation at all (OpenSSL's own\n"
"function gives 1 there on a server whose client would also speak TLS 1.2).\n"
"\n"
"On the wire: nothing. Raises ConnectionClosedError, NotATLSConnectionError\n"
"(a TypeError).\n"
"\n"
THREADS_DOC
"\n"
"Source: SSL_get_secure_renegotiation_support(3), RFC 5746 section 3.");

PyDoc_STRVAR(total_renegotiations_doc,
"total_renegotiations($module, conn, /)\n"
"--\n"
"\n"
"Return the number of renegotiations that this side has begun.\n"
"\n"
CONN_DOC
"\n"
"OpenSSL counts beginnings, not completions: a HelloRequest sent (server), a\n"
"ClientHello sent (client, also in answer to a HelloRequest). A server does\n"
"not count what a client began by itself.\n"
"\n"
"On the wire: nothing. Raises ConnectionClosedError, NotATLSConnectionError\n"
"(a TypeError).\n"
"\n"
THREADS_DOC
"\n"
"Source: SSL_total_renegotiations(3).");

#endif

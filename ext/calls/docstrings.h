/* The text that help() prints for each function.  The first line is the signature,
   which inspect reads.  Then follow the reason for the function, what each side does,
   what goes on the wire and when, the errors, the thread rule, and the source. */
#ifndef PYKEYUPDATE_DOCSTRINGS_H
#define PYKEYUPDATE_DOCSTRINGS_H

#include <Python.h>

/* clang-format off */

#define CONN_DOC                                                              \
    "conn is an ssl.SSLSocket or ssl.SSLObject, the _ssl._SSLSocket inside it, or\n"  \
    "an object that holds one (an HTTP response, a StreamWriter: see rekey()).\n"

#define THREADS_DOC                                                           \
    "Threads: any for a managed SSLSocket. For others, the thread that does this\n"  \
    "connection's I/O, or one that holds the lock that guards that I/O: OpenSSL\n"   \
    "allows one thread at a time in a connection, and a thread that waits in\n"      \
    "recv() is in the connection.\n"

#define REFUSED_DOC                                                           \
    "A refusal changes nothing: the connection stays as it was. NotNowError means\n" \
    "try again after the next I/O; NotPossibleError means never on this\n"       \
    "connection. Both are PyKeyUpdateError.\n"

PyDoc_STRVAR(key_update_doc,
"key_update($module, conn, /, update_type=KeyUpdateType.NOT_REQUESTED)\n"
"--\n"
"\n"
"Schedule a TLS 1.3 key update: new keys for what this side sends.\n"
"\n"
"Why: to limit how much data, or for how long, one key encrypts. An AES-GCM key\n"
"must be replaced, or the connection closed, before 2**24.5 full records (about\n"
"362 GiB), and OpenSSL never does this by itself. A key update protects old data\n"
"from whoever gets the present key later (forward secrecy), and not later data\n"
"from whoever has it now: the new key derives from the old one.\n"
"\n"
CONN_DOC
"update_type is KeyUpdateType.NOT_REQUESTED (change only our sending keys; the\n"
"default, because some peers limit or refuse updates that they must answer) or\n"
"KeyUpdateType.REQUESTED (also ask the peer to update its own).\n"
"\n"
"On the wire: nothing yet. The next send or recv sends one KeyUpdate message (a\n"
"27 byte record with AES-GCM) and then changes the sending key; do_handshake()\n"
"does so at once. It does not wait for the peer. The peer changes its receiving\n"
"key when it reads the message and, if requested, answers before its next data.\n"
"Until the message is built get_key_update_type() returns the type, and until it\n"
"is sent version() returns None, getpeercert() raises ValueError and unwrap()\n"
"fails, as in any handshake. On a non-blocking socket with a full send buffer\n"
"do_handshake() raises SSLWantWriteError, and calling it again finishes the\n"
"update.\n"
"\n"
"How often: sparingly. At most one REQUESTED may be unanswered (RFC 9846\n"
"4.7.3); GnuTLS peers accept 8 updates a second, BoringSSL and rustls 32 in a\n"
"row without data, Go 16, Mbed TLS none, an OpenSSL to come one in 100 ms.\n"
"\n"
"Raises InvalidKeyUpdateTypeError (a ValueError) for NONE or any other value;\n"
"HandshakeNotDoneError before the handshake; WrongProtocolVersionError below\n"
"TLS 1.3; AlreadyPendingError while an update is scheduled, in the middle of\n"
"a post-handshake message, and for REQUESTED while we owe the peer an answer;\n"
"WritePendingError while a send that raised SSLWantWriteError is incomplete (not\n"
"on a managed SSLSocket: its message follows that data);\n"
"ReadPendingError (OpenSSL before 1.1.1l only) while received data is unread;\n"
"CloseNotifyError after unwrap() began; KernelTLSError; ConnectionFailedError;\n"
"ConnectionClosedError; UnsupportedByLibraryError; DeferredByOpenSSLError and\n"
"RefusedByOpenSSLError for a refusal of OpenSSL's own; NotATLSConnectionError (a\n"
"TypeError).\n"
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
"The type is returned from key_update() until the message is built.\n"
"NOT_REQUESTED is also returned without any call of yours: the peer has\n"
"requested an update, and our answer goes out with the next send (do_handshake()\n"
"does not send it, and recv() only in front of another handshake message that it\n"
"reads; a send of b'' does, though Python 3.9 then raises SSLEOFError). NONE\n"
"means that the message is built, not that it is sent: with a full send buffer\n"
"on a non-blocking socket the message waits until I/O stops raising\n"
"SSLWantWriteError. On TLS 1.2 and below, and before the handshake, the result\n"
"is NONE.\n"
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
"Why: to get new keys, with a new (EC)DHE exchange, on a protocol without key\n"
"update; or another client certificate. When not: if the peer may refuse. If a\n"
"renegotiation is refused, OpenSSL ends the connection on both sides, and there\n"
"is no way to ask the peer first. OpenSSL 3 servers refuse a client's\n"
"renegotiation unless OP_ALLOW_CLIENT_RENEGOTIATION is set in their context's\n"
"options.\n"
"\n"
CONN_DOC
"\n"
"On the wire: nothing yet. On a client the next I/O sends a ClientHello that\n"
"offers no session to resume; do_handshake() sends it at once and, on a blocking\n"
"socket, returns when the new handshake is complete. On a server the next I/O\n"
"or do_handshake() sends a HelloRequest, and do_handshake() returns at once; the\n"
"client follows when it next reads, and the new handshake runs inside our\n"
"recv(). renegotiate_pending() is True until the new handshake is complete.\n"
"\n"
"Application data in flight: only recv() can drive a renegotiation past it. A\n"
"client that calls do_handshake() or send() while data from the server is on\n"
"its way loses the connection (UNEXPECTED_RECORD). If the data has been received\n"
"and is unread, renegotiate() is refused (ReadPendingError). Agree on a quiet\n"
"moment, or keep reading until renegotiate_pending() is False. None of this\n"
"concerns a managed SSLSocket, which holds the data back.\n"
"Afterwards the peer may have another certificate: check it again.\n"
"\n"
"Raises HandshakeNotDoneError before the handshake (OpenSSL would send the\n"
"next data in plaintext); WrongProtocolVersionError on TLS 1.3;\n"
"AlreadyPendingError during a renegotiation; WritePendingError while a send\n"
"that raised SSLWantWriteError is incomplete (not on a managed SSLSocket: its\n"
"message follows that data); ReadPendingError on a client with unread received\n"
"data (likewise); RenegotiationForbiddenError with OP_NO_RENEGOTIATION;\n"
"InsecureRenegotiationError if the peer does not support RFC 5746;\n"
"CloseNotifyError after either side's close_notify; KernelTLSError;\n"
"ConnectionFailedError; ConnectionClosedError; UnsupportedByLibraryError;\n"
"RefusedByOpenSSLError; NotATLSConnectionError (a TypeError).\n"
REFUSED_DOC
"\n"
THREADS_DOC
"\n"
"Source: SSL_renegotiate(3), RFC 5746, RFC 5246 section 7.4.1.");

PyDoc_STRVAR(renegotiate_abbreviated_doc,
"renegotiate_abbreviated($module, conn, /)\n"
"--\n"
"\n"
"Schedule a renegotiation that resumes the session if possible.\n"
"\n"
"Like renegotiate(), but a client offers its current session, and a server that\n"
"agrees skips key exchange and certificates. The new keys come from the old\n"
"master secret, which is cheaper, but without a new (EC)DHE exchange. A server\n"
"with OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION does not agree. On a server it\n"
"does the same as renegotiate(): the client decides what it offers.\n"
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
"It is True from renegotiate() until the new handshake is complete. On a server\n"
"this includes the time until the client follows our HelloRequest, which the\n"
"client may ignore for ever. It is also True during a renegotiation that the\n"
"peer began. It is False on TLS 1.3.\n"
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
"If it is False renegotiate() is refused: an insecure renegotiation lets an\n"
"attacker insert data in front of the client's (CVE-2009-3555). False before the\n"
"handshake, and on TLS 1.3, which has no renegotiation at all (OpenSSL's own\n"
"function may return 1 there, on a server).\n"
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
"OpenSSL counts starts, not completions: each HelloRequest that a server sends,\n"
"and each ClientHello that a client sends (also in answer to a HelloRequest). A\n"
"server does not count renegotiations that a client began by itself.\n"
"\n"
"On the wire: nothing. Raises ConnectionClosedError, NotATLSConnectionError\n"
"(a TypeError).\n"
"\n"
THREADS_DOC
"\n"
"Source: OpenSSL's macro SSL_total_renegotiations(), which has no manual page.");

#endif

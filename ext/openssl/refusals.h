/* The refusals of a connection: each one's name in C, whether it holds for good on this
   connection (a policy then gives up), its exception (pykeyupdate/_errors.py), and the
   reason and the remedy.  A text with %s needs ku_outcome.detail.  (A wrong type of key
   update is no connection's: ku_refuse_type(), errors.c.) */
#ifndef PYKEYUPDATE_REFUSALS_H
#define PYKEYUPDATE_REFUSALS_H

/* clang-format off */
#define KU_REFUSALS(X)                                                                  \
    /* --- not a connection at all */                                                  \
    X(KU_NO_POINTER, NEVER, NotATLSConnectionError,                                    \
      "this ssl object holds no connection of this interpreter's ssl module; "         \
      "get connections from SSLContext.wrap_socket() or wrap_bio()")                   \
    /* --- never on this connection */                                                 \
    X(KU_CLOSED, NEVER, ConnectionClosedError,                                         \
      "the connection is closed or unwrapped; open a new one")                         \
    X(KU_FAILED, NEVER, ConnectionFailedError,                                         \
      "a fatal TLS error, or its PeerLimits, ended this connection; close it and "     \
      "open a new one")                                                                \
    X(KU_CLOSE_SENT, NEVER, CloseNotifyError,                                          \
      "close_notify has been sent and nothing may follow it; finish unwrap() "         \
      "and open a new connection")                                                     \
    X(KU_CLOSE_RECEIVED, NEVER, CloseNotifyError,                                      \
      "the peer has sent close_notify and will not answer; finish "                    \
      "unwrap() and open a new connection")                                            \
    X(KU_NEEDS_TLS13, NEVER, WrongProtocolVersionError,                                \
      "key update exists in TLS 1.3 only and this connection is %s; "                  \
      "use renegotiate()")                                                             \
    X(KU_NEEDS_TLS12, NEVER, WrongProtocolVersionError,                                \
      "renegotiation exists up to TLS 1.2 only and this connection is %s; "            \
      "use key_update()")                                                              \
    X(KU_FORBIDDEN, NEVER, RenegotiationForbiddenError,                                \
      "OP_NO_RENEGOTIATION is set (kernel TLS and PeerLimits set it too); clear it "   \
      "in the context's options before connecting; on a managed connection, change "   \
      "PeerLimits.renegotiation or call allow_renegotiation()")                        \
    X(KU_INSECURE, NEVER, InsecureRenegotiationError,                                  \
      "the peer does not support secure renegotiation (RFC 5746); open a new "         \
      "connection to get new keys")                                                    \
    X(KU_KERNEL_TLS, NEVER, KernelTLSError,                                            \
      "the kernel holds this connection's keys (OP_ENABLE_KTLS) and this "             \
      "OpenSSL with this kernel cannot change them; connect without "                  \
      "OP_ENABLE_KTLS")                                                                \
    X(KU_NOT_SERVER, NEVER, WrongRoleError,                                            \
      "only a server can ask for its peer's certificate; a client verified the "       \
      "server's in the handshake, see getpeercert()")                                  \
    X(KU_NO_PHA, NEVER, NoPostHandshakeAuthError,                                      \
      "the client did not offer post-handshake authentication, without which "         \
      "TLS 1.3 has no way to ask (Python clients: SSLContext."                         \
      "post_handshake_auth = True)")                                                   \
    X(KU_MISSING, NEVER, UnsupportedByLibraryError,                                    \
      "the TLS library of this interpreter's ssl module has no %s(); see "             \
      "`python -m pykeyupdate doctor`")                                                \
    X(KU_FORKED, NEVER, ConnectionFailedError,                                         \
      "another thread was in this connection when the process forked, so it is "       \
      "the parent's; close it and open a new one")                                     \
    X(KU_UNMANAGED, NEVER, NotManagedError,                                            \
      "not a managed connection; call manage() on its context, or install(), "         \
      "before connecting")                                                             \
    X(KU_NOT_ALLOWED, NEVER, WrongProtocolVersionError,                                \
      "new keys in %s need a renegotiation, which its RekeyPolicy does not allow; "    \
      "pass renegotiate=True, or connect with TLS 1.3")                                \
    X(KU_NEEDS_OWNER, NEVER, RekeyImpossibleError,                                     \
      "new keys in %s need a renegotiation, for which its owner must read or write; "  \
      "use the connection, or connect with TLS 1.3")                                   \
    X(KU_KEY_TOO_OLD, NEVER, RekeyImpossibleError,                                     \
      "its RekeyPolicy closed it while nobody used it, because its key was older "     \
      "than max_key_age_seconds and could not be changed; open a new one")             \
    X(KU_PEER_LIMIT, NEVER, PeerLimitError,                                            \
      "the peer exceeded PeerLimits.%s and was cut off; close it (or, if you trust "   \
      "this peer, raise that limit)")                                                  \
    /* --- not now; try again after the next I/O */                                    \
    X(KU_NOT_CONNECTED, NOT_NOW, HandshakeNotDoneError,                                \
      "the socket is not connected; connect() it first (of a listening socket, "       \
      "pass what accept() returns)")                                                   \
    X(KU_NO_HANDSHAKE, NOT_NOW, HandshakeNotDoneError,                                 \
      "handshake not done yet; complete do_handshake() first")                         \
    X(KU_UPDATE_SCHEDULED, NOT_NOW, AlreadyPendingError,                               \
      "a key update is scheduled and not yet sent; do_handshake() or the next "        \
      "send or recv sends it")                                                         \
    X(KU_ANSWER_OWED, NOT_NOW, AlreadyPendingError,                                    \
      "the peer has asked for a key update and its answer comes first; send "          \
      "something, or call key_update(NOT_REQUESTED) and do_handshake()")               \
    X(KU_IN_MESSAGE, NOT_NOW, AlreadyPendingError,                                     \
      "a post-handshake message is partly sent or received; call do_handshake(), "     \
      "or recv() until it is complete")                                                \
    X(KU_RENEGOTIATING, NOT_NOW, AlreadyPendingError,                                  \
      "a renegotiation is pending; recv() until renegotiate_pending() is False")       \
    X(KU_WRITE_PENDING, NOT_NOW, WritePendingError,                                    \
      "a write stopped half-way (SSLWantWriteError); repeat the same write until "     \
      "it is complete")                                                                \
    X(KU_READ_PENDING, NOT_NOW, ReadPendingError,                                      \
      "received data is waiting, and a client that renegotiates over it may "          \
      "lose the connection; recv() it first")                                          \
    X(KU_READ_PENDING_OLD, NOT_NOW, ReadPendingError,                                  \
      "received data is waiting, and OpenSSL before 1.1.1l cannot change keys "        \
      "with a record half read; recv() it first")                                      \
    X(KU_BEGINS_WITH_READ, NOT_NOW, ReadPendingError,                                  \
      "a client's renegotiation begins with its next read, because data may be on "    \
      "its way to it; read() first")                                                   \
    X(KU_UNREAD, NOT_NOW, ReadPendingError,                                            \
      "received data is waiting, and a server's request for new keys or for a "        \
      "certificate does not go out before it has been read; recv() it first")          \
    X(KU_CERTIFICATE_REQUESTED, NOT_NOW, AlreadyPendingError,                          \
      "the client has been asked for its certificate and has not answered; "           \
      "recv() takes the answer")                                                       \
    X(KU_DATA_IN_FRONT, NOT_NOW, ReadPendingError,                                     \
      "more than a megabyte of application data has come before the peer's "           \
      "handshake message; recv() it, then call again to go on (nothing has been "      \
      "lost)")                                                                         \
    X(KU_TOO_SOON, NOT_NOW, AlreadyPendingError,                                       \
      "the last key update is too recent (min_interval_seconds)")                      \
    X(KU_UNANSWERED, NOT_NOW, AlreadyPendingError,                                     \
      "the peer has not answered the last request for a key update")                   \
    X(KU_IN_CALLBACK, NOT_NOW, AlreadyPendingError,                                    \
      "refused, and nothing was done: it was called from a callback (or from what "    \
      "runs in one, a signal handler or a finalizer) in the middle of another call "   \
      "of this thread on this connection; call it after that one has returned")        \
    X(KU_IN_WRITE, NOT_NOW, AlreadyPendingError,                                       \
      "refused, and nothing was done: it was called from a signal handler or an "      \
      "on_impossible function that interrupted a send of this thread half-way, and "   \
      "would mix its data with that send's; call it after the send has returned")      \
    X(KU_BUSY, NOT_NOW, AlreadyPendingError,                                           \
      "refused, and nothing was done: another thread is using it; use an SSLObject "   \
      "in one thread at a time")                                                       \
    X(KU_ELSEWHERE, NOT_NOW, AlreadyPendingError,                                      \
      "refused, and nothing was done: another thread is using this connection, and "   \
      "a callback of another connection cannot wait for it; call it outside the "      \
      "callback")
/* clang-format on */

#endif

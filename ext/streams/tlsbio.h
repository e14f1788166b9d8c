/* What OpenSSL reads from and writes to in a managed socket: memory.

   OpenSSL has memory BIOs of its own (ssl.MemoryBIO is one).  These differ in two ways.
   They free their memory as soon as it is empty: a thousand idle connections must cost
   nothing.  And OpenSSL sees only whole records, so it is never in the middle of one.
   There it would put off a renegotiation (ssl3_renegotiate_check(), s3_lib.c), and
   before 1.1.1l fail over a key update.

   A record need not lie here before OpenSSL sees it.  OpenSSL reads ahead
   (SSL_set_read_ahead(3)), which means that it asks for a header and offers memory for
   all that comes behind it.  So the rest of a record can be received into that memory,
   and if not all of it has come, OpenSSL has not seen any. */
#ifndef PYKEYUPDATE_TLSBIO_H
#define PYKEYUPDATE_TLSBIO_H

#include "openssl/libssl.h"
#include "system/buffer.h"
#include "system/wire.h"

struct ku_tlsbio {
    struct ku_buffer input; /* received, and not yet read by OpenSSL */
    size_t whole_bytes;     /* how many bytes of it are whole records */
    size_t unread;          /* how many bytes are left of the one that OpenSSL reads */
    int at_end;             /* the peer sends no more */
    int receives;       /* OpenSSL may receive what is missing of the record that has
                               begun from `socket`, */
    int receives_ahead; /* and the next header */
    int received;       /* it has received something, */
    int receive_error;  /* or met this error (the system's number) */
    int is_short;       /* the record that has begun was tried, and not all there */
    struct ku_buffer output; /* written by OpenSSL, and not yet taken */
    size_t flushed;          /* bytes of it that OpenSSL wants to have sent first */
    int sends;      /* what OpenSSL writes goes to `socket`, as far as it can */
    int send_error; /* the system's error number, if that failed */
    ku_socket socket;
};

/* The method of such BIOs, for ku_tlsbio_install(); NULL if out of memory. */
BIO_METHOD *ku_tlsbio_method(const struct ku_libssl *libssl);

/* Make a new ku_tlsbio what the SSL reads and writes, in place of any BIO that it had.
   The SSL owns it.  Returns 0, or -1 if out of memory. */
int ku_tlsbio_install(const struct ku_libssl *libssl, BIO_METHOD *method, SSL *ssl);

/* The ku_tlsbio of a connection, or NULL if the connection has another BIO.  It lives
   as long as the SSL. */
struct ku_tlsbio *ku_tlsbio_of(const struct ku_libssl *libssl, SSL *ssl);

/* How many bytes to receive: to the end of the record that has begun, or of its header;
   with `ahead`, also the next header.  Never more, because the rest must remain visible
   in the socket: a program that waits in select() must learn of data, and of the peer's
   close_notify behind it, and could see neither of them here.  It can still see the
   rest of a record whose header we have taken. */
size_t ku_tlsbio_wanted(const struct ku_tlsbio *bio, int ahead);

/* Has a record begun whose rest OpenSSL should try to receive itself? */
int ku_tlsbio_has_begun(const struct ku_tlsbio *bio);

/* May the record that comes next, whose header is here, have data?  In TLS 1.3 most
   may. */
int ku_tlsbio_data_may_follow(const struct ku_tlsbio *bio);

/* And does it certainly have data?  In TLS 1.3 only its length tells, so only the
   longest records count: nobody pads an alert to that length. */
int ku_tlsbio_data_follows(const struct ku_tlsbio *bio, int is_tls13);

/* Lend memory to receive `length` bytes into (NULL if out of memory), and take back
   what was received.  Only one thread may borrow at a time.  Meanwhile OpenSSL may read
   what is here. */
char *ku_tlsbio_lend(struct ku_tlsbio *bio, size_t length);
void ku_tlsbio_take_back(struct ku_tlsbio *bio, size_t received);

#endif

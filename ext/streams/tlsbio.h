/* What OpenSSL reads from and writes to in a managed socket: memory.

   OpenSSL has memory BIOs of its own (ssl.MemoryBIO is one).  These differ in two
   ways.  They give their memory back as soon as it is empty: a thousand idle
   connections must cost nothing.  And OpenSSL sees whole records only, so that it
   is never in the middle of one: there it would put off a renegotiation
   (ssl3_renegotiate_check(), s3_lib.c), and before 1.1.1l break over a key update. */
#ifndef PYKEYUPDATE_TLSBIO_H
#define PYKEYUPDATE_TLSBIO_H

#include "system/buffer.h"
#include "openssl/libssl.h"

struct ku_tlsbio {
    struct ku_buffer input;  /* received, and not read by OpenSSL */
    size_t whole_bytes;      /* so many bytes of it are whole records */
    size_t last;             /* the length of the last of them */
    int at_end;              /* the peer sends no more */
    struct ku_buffer output; /* written by OpenSSL, and not taken */
    size_t flushed;          /* so much of it OpenSSL wanted to have sent first */
};

/* How such a BIO behaves, for ku_tlsbio_install(); NULL without memory. */
BIO_METHOD *ku_tlsbio_method(const struct ku_libssl *libssl);

/* Make this what OpenSSL reads and writes, in place of any BIO there was; -1
   without memory. */
int ku_tlsbio_install(const struct ku_libssl *libssl, BIO_METHOD *method, SSL *ssl);

/* The one of a connection, or NULL where it has another BIO.  It lives as long
   as the connection. */
struct ku_tlsbio *ku_tlsbio_of(const struct ku_libssl *libssl, SSL *ssl);

/* How many bytes to receive: to the end of the record that has begun, or of its
   header; with `ahead` also the next header.  Never more: what is left is for the
   socket to show.  A program that waits in select() must be told of data, and of
   the peer's close_notify behind it, and here neither could be seen.  Of a record
   whose header has been taken the rest can be. */
size_t ku_tlsbio_wanted(const struct ku_tlsbio *bio, int ahead);

/* Is the record that comes next, of which the header is here, one that may be of
   data?  In TLS 1.3 most may. */
int ku_tlsbio_data_may_follow(const struct ku_tlsbio *bio);

/* And is it, surely?  In TLS 1.3 only its length tells, so only the longest count:
   nobody pads an alert to that. */
int ku_tlsbio_data_follows(const struct ku_tlsbio *bio, int is_tls13);

/* Lend memory to receive `length` bytes into, and take back what was received.
   Only one may borrow at a time; meanwhile OpenSSL may read what there is. */
char *ku_tlsbio_lend(struct ku_tlsbio *bio, size_t length);
void ku_tlsbio_take_back(struct ku_tlsbio *bio, size_t received);

#endif

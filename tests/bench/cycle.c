/* What `python -m pykeyupdate bench calls` and `bench rekey` measure, without Python:

       cycle LIBSSL PEM CYCLES

   A client schedules a key update and writes one byte, which performs the update
   first; a server reads both.  TLS 1.3 over two memory BIOs, with BIOs and modes
   as CPython's _ssl sets them.  PEM holds the server's key and certificates.
   Prints, each on a line: the cipher; the nanoseconds per cycle; the nanoseconds of
   user time per cycle; and the nanoseconds of user time for the byte alone.

   Every function is taken from the LIBSSL of the interpreter under comparison, and
   from the libcrypto that it brings: no OpenSSL headers, no -lssl. */
#define _POSIX_C_SOURCE 200809L

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_method_st SSL_METHOD;
typedef struct ssl_cipher_st SSL_CIPHER;
typedef struct bio_st BIO;
typedef struct bio_method_st BIO_METHOD;

/* Constants of OpenSSL's public headers, the same from 1.1.1 to 4.0. */
#define SSL_KEY_UPDATE_NOT_REQUESTED 0
#define SSL_FILETYPE_PEM 1
#define TLS1_3_VERSION 0x0304
#define SSL_CTRL_MODE 33
#define SSL_CTRL_SET_MIN_PROTO_VERSION 123
#define SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER 0x2
#define SSL_MODE_AUTO_RETRY 0x4
#define SSL_MODE_RELEASE_BUFFERS 0x10
#define BIO_FLAGS_READ_RETRY 0x9  /* BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY */
#define BIO_C_SET_BUF_MEM_EOF_RETURN 130

#define FUNCTIONS(X)                                                       \
    X(const SSL_METHOD *, TLS_client_method, (void))                       \
    X(const SSL_METHOD *, TLS_server_method, (void))                       \
    X(SSL_CTX *, SSL_CTX_new, (const SSL_METHOD *))                        \
    X(long, SSL_CTX_ctrl, (SSL_CTX *, int, long, void *))                  \
    X(int, SSL_CTX_use_certificate_chain_file, (SSL_CTX *, const char *))  \
    X(int, SSL_CTX_use_PrivateKey_file, (SSL_CTX *, const char *, int))    \
    X(SSL *, SSL_new, (SSL_CTX *))                                         \
    X(long, SSL_ctrl, (SSL *, int, long, void *))                          \
    X(void, SSL_set_bio, (SSL *, BIO *, BIO *))                            \
    X(void, SSL_set_connect_state, (SSL *))                                \
    X(void, SSL_set_accept_state, (SSL *))                                 \
    X(int, SSL_do_handshake, (SSL *))                                      \
    X(int, SSL_key_update, (SSL *, int))                                   \
    X(int, SSL_write, (SSL *, const void *, int))                          \
    X(int, SSL_read, (SSL *, void *, int))                                 \
    X(const SSL_CIPHER *, SSL_get_current_cipher, (const SSL *))           \
    X(const char *, SSL_CIPHER_get_name, (const SSL_CIPHER *))             \
    X(const BIO_METHOD *, BIO_s_mem, (void))                               \
    X(BIO *, BIO_new, (const BIO_METHOD *))                                \
    X(int, BIO_up_ref, (BIO *))                                            \
    X(void, BIO_set_flags, (BIO *, int))                                   \
    X(long, BIO_ctrl, (BIO *, int, long, void *))

#define DECLARE(result, name, arguments) static result (*name) arguments;
FUNCTIONS(DECLARE)

static void
require(int condition, const char *what)
{
    if (!condition) {
        fprintf(stderr, "%s failed\n", what);
        exit(1);
    }
}

/* ISO C has no cast from void * to a function pointer; POSIX promises that the
   representation is the same. */
static void
take(void *library, const char *name, void *slot)
{
    void *function = dlsym(library, name);
    require(function != NULL, name);
    memcpy(slot, &function, sizeof(function));
}

static void
take_functions(const char *libssl)
{
    void *library = dlopen(libssl, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
#define TAKE(result, name, arguments) take(library, #name, &name);
    FUNCTIONS(TAKE)
}

static SSL_CTX *
new_context(const SSL_METHOD *method)
{
    SSL_CTX *context = SSL_CTX_new(method);
    require(context != NULL, "SSL_CTX_new");
    SSL_CTX_ctrl(context, SSL_CTRL_MODE, SSL_MODE_RELEASE_BUFFERS, NULL);
    SSL_CTX_ctrl(context, SSL_CTRL_SET_MIN_PROTO_VERSION, TLS1_3_VERSION, NULL);
    return context;
}

/* Empty means "later", not the end: as in _ssl.MemoryBIO. */
static BIO *
new_bio(void)
{
    BIO *bio = BIO_new(BIO_s_mem());
    require(bio != NULL, "BIO_new");
    BIO_set_flags(bio, BIO_FLAGS_READ_RETRY);
    BIO_ctrl(bio, BIO_C_SET_BUF_MEM_EOF_RETURN, -1, NULL);
    return bio;
}

static SSL *
new_connection(SSL_CTX *context, BIO *incoming, BIO *outgoing)
{
    SSL *ssl = SSL_new(context);
    require(ssl != NULL, "SSL_new");
    BIO_up_ref(incoming);
    BIO_up_ref(outgoing);
    SSL_set_bio(ssl, incoming, outgoing);
    SSL_ctrl(ssl, SSL_CTRL_MODE,
             SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_AUTO_RETRY, NULL);
    return ssl;
}

static void
connect_ends(const char *pem, SSL **client, SSL **server)
{
    SSL_CTX *near = new_context(TLS_client_method());
    SSL_CTX *far = new_context(TLS_server_method());
    require(SSL_CTX_use_certificate_chain_file(far, pem) == 1, "the certificates");
    require(SSL_CTX_use_PrivateKey_file(far, pem, SSL_FILETYPE_PEM) == 1, "the key");
    BIO *to_client = new_bio(), *to_server = new_bio();
    *client = new_connection(near, to_client, to_server);
    *server = new_connection(far, to_server, to_client);
    SSL_set_connect_state(*client);
    SSL_set_accept_state(*server);
    SSL_do_handshake(*client);
    SSL_do_handshake(*server);
    require(SSL_do_handshake(*client) == 1, "the client's handshake");
    require(SSL_do_handshake(*server) == 1, "the server's handshake");
    /* Behind the session tickets, which the client reads before it. */
    char byte;
    require(SSL_write(*server, "!", 1) == 1, "the server's SSL_write");
    require(SSL_read(*client, &byte, 1) == 1, "the client's SSL_read");
}

static double
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static double
user_time(void)
{
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    return (double)used.ru_utime.tv_sec * 1e9 + (double)used.ru_utime.tv_usec * 1e3;
}

static double
nanoseconds_per_cycle(SSL *client, SSL *server, long cycles, int updates,
                      double (*clock)(void))
{
    char byte;
    double start = clock();
    for (long i = 0; i < cycles; i++) {
        require(!updates || SSL_key_update(client, SSL_KEY_UPDATE_NOT_REQUESTED) == 1,
                "SSL_key_update");
        require(SSL_write(client, "x", 1) == 1, "SSL_write");
        require(SSL_read(server, &byte, 1) == 1, "SSL_read");
    }
    return (clock() - start) / (double)cycles;
}

int
main(int argc, char **argv)
{
    SSL *client, *server;
    require(argc == 4, "usage: cycle LIBSSL PEM CYCLES; this call");
    long cycles = strtol(argv[3], NULL, 10);
    require(cycles > 0, "CYCLES");
    take_functions(argv[1]);
    connect_ends(argv[2], &client, &server);
    printf("%s\n", SSL_CIPHER_get_name(SSL_get_current_cipher(client)));
    nanoseconds_per_cycle(client, server, cycles / 10 + 1, 1, now);  /* warm up */
    printf("%.1f\n", nanoseconds_per_cycle(client, server, cycles, 1, now));
    printf("%.1f\n", nanoseconds_per_cycle(client, server, cycles, 1, user_time));
    printf("%.1f\n", nanoseconds_per_cycle(client, server, cycles, 0, user_time));
    return 0;
}

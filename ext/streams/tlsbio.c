#include "streams/tlsbio.h"

#include "openssl/constants.h"
#include "system/mutex.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The record layer: RFC 9846 section 5.1. */
#define RECORD_HEADER 5
#define MAX_RECORD_LENGTH (TLS_MAX_PLAINTEXT + 2048) /* TLS 1.2; TLS 1.3 has + 256 */
#define CONTENT_APPLICATION_DATA 23

/* To copy a record shorter than this takes less time than to receive it into OpenSSL's
   memory, which is not in the processor's cache (measured with 64 bytes: 2 % of a round
   trip). */
#define SHORT_RECORD 2048

static const char NAME[] = "pykeyupdate";

/* OpenSSL passes the functions below nothing but the BIO.  What they need of libcrypto
   is the same in every interpreter of the process, because all of them share one _ssl.
   These are C functions, not Python objects, and they are never unloaded. */
static struct {
    void *(*get_data)(BIO *);
    void (*set_flags)(BIO *, int);
    void (*clear_flags)(BIO *, int);
} crypto;

/* --- records ---------------------------------------------------------------------- */

/* The length of the record that begins at `data`, with its header; 0 if it is not a TLS
   record (an SSLv2 hello, HTTP).  OpenSSL must see such bytes as they come, and say
   what they are. */
static size_t
record_length(const char *data)
{
    const unsigned char *header = (const unsigned char *)data;
    size_t length = (size_t)header[3] << 8 | header[4];
    int is_record = header[0] >= 20 && header[0] <= 24 && header[1] == 3
                    && length <= MAX_RECORD_LENGTH;
    return is_record ? RECORD_HEADER + length : 0;
}

static void
find_whole_records(struct ku_tlsbio *bio)
{
    size_t there = ku_buffer_length(&bio->input);
    while (there - bio->whole_bytes >= RECORD_HEADER) {
        size_t length =
            record_length(bio->input.memory + bio->input.start + bio->whole_bytes);
        if (length == 0) {
            bio->whole_bytes = there;
        }
        else if (there - bio->whole_bytes < length) {
            return;
        }
        else {
            bio->whole_bytes += length;
            bio->is_short = 0;
        }
    }
}

/* The header of the record that has begun, or NULL if it is not here.  `begun` becomes
   how many bytes of the record are here. */
static const char *
begun_header(const struct ku_tlsbio *bio, size_t *begun)
{
    *begun = ku_buffer_length(&bio->input) - bio->whole_bytes;
    return *begun >= RECORD_HEADER ? bio->input.memory + bio->input.end - *begun : NULL;
}

size_t
ku_tlsbio_wanted(const struct ku_tlsbio *bio, int ahead)
{
    size_t begun;
    const char *header = begun_header(bio, &begun);
    return header == NULL ? RECORD_HEADER - begun
                          : record_length(header) - begun + (ahead ? RECORD_HEADER : 0);
}

int
ku_tlsbio_has_begun(const struct ku_tlsbio *bio)
{
    size_t begun;
    const char *header = begun_header(bio, &begun);
    return bio->whole_bytes == 0 && !bio->is_short && header != NULL
           && record_length(header) >= SHORT_RECORD;
}

int
ku_tlsbio_data_may_follow(const struct ku_tlsbio *bio)
{
    size_t begun;
    const char *header = begun_header(bio, &begun);
    return header != NULL && header[0] == CONTENT_APPLICATION_DATA;
}

int
ku_tlsbio_data_follows(const struct ku_tlsbio *bio, int is_tls13)
{
    size_t begun;
    return ku_tlsbio_data_may_follow(bio)
           && (!is_tls13
               || record_length(begun_header(bio, &begun))
                      > RECORD_HEADER + TLS_MAX_PLAINTEXT);
}

char *
ku_tlsbio_lend(struct ku_tlsbio *bio, size_t length)
{
    char *room = ku_buffer_reserve(&bio->input, length);
    bio->input.lent = room != NULL;
    return room;
}

void
ku_tlsbio_take_back(struct ku_tlsbio *bio, size_t received)
{
    bio->input.lent = 0;
    bio->input.end += received;
    ku_buffer_drop(&bio->input, 0);
    find_whole_records(bio);
}

/* --- functions that OpenSSL calls ------------------------------------------------- */

/* What of the bytes received lies behind the record, or is not all of it, goes here. */
static void
keep_input(struct ku_tlsbio *bio, const char *data, size_t length)
{
    if (ku_buffer_append(&bio->input, data, length) < 0) {
        bio->receive_error = ENOMEM;
    }
}

/* Receive the rest of the record that has begun, without waiting, behind a copy of its
   beginning.  Returns the length of the whole record; 0 if it is not all there. */
static size_t
receive_record(struct ku_tlsbio *bio, char *data, size_t room)
{
    size_t begun;
    const char *header = begun_header(bio, &begun);
    size_t length = record_length(header);
    size_t wanted = ku_tlsbio_wanted(bio, bio->receives_ahead);
    bio->receives = 0;
    bio->is_short = 1;
    if (begun + wanted > room) {
        return 0;
    }
    memcpy(data, header, begun);
    int error = 0;
    long got = ku_wire_receive(bio->socket, data + begun, wanted, 0, &error);
    if (got <= 0) { /* whoever receives next meets the end again */
        bio->receive_error = got == KU_WIRE_ERROR ? error : 0;
        return 0;
    }
    bio->received = 1;
    size_t there = begun + (size_t)got;
    if (there < length) {
        keep_input(bio, data + begun, (size_t)got);
        return 0;
    }
    bio->is_short = 0;
    keep_input(bio, data + length, there - length);
    ku_buffer_drop(&bio->input, begun);
    return length;
}

/* Let OpenSSL have one record at most: with two it would be in the middle of one. */
static size_t
take_input(struct ku_tlsbio *bio, char *data, size_t room)
{
    size_t seen = bio->at_end ? ku_buffer_length(&bio->input) : bio->whole_bytes;
    if (bio->unread == 0) {
        size_t length = seen < RECORD_HEADER
                            ? 0
                            : record_length(bio->input.memory + bio->input.start);
        bio->unread = length > 0 && length < seen ? length : seen;
    }
    size_t taken =
        ku_buffer_take(&bio->input, data, bio->unread < room ? bio->unread : room);
    bio->unread -= taken;
    bio->whole_bytes -= taken < bio->whole_bytes ? taken : bio->whole_bytes;
    return taken;
}

static int
read_input(BIO *self, char *data, int length)
{
    struct ku_tlsbio *bio = crypto.get_data(self);
    crypto.clear_flags(self, BIO_FLAGS_RETRY);
    if (length <= 0) {
        return 0;
    }
    size_t taken = bio->receives ? receive_record(bio, data, (size_t)length)
                                 : take_input(bio, data, (size_t)length);
    if (taken == 0 && !bio->at_end) {
        crypto.set_flags(self, BIO_FLAGS_READ | BIO_FLAGS_SHOULD_RETRY);
        return -1;
    }
    return (int)taken;
}

/* Send without waiting.  Returns how many bytes the socket has taken; it is asked no more
   once that was not all. */
static size_t
send_directly(struct ku_tlsbio *bio, const char *data, size_t length)
{
    int error = 0;
    long sent = ku_wire_send(bio->socket, data, length, 0, &error);
    if (sent == KU_WIRE_ERROR && !ku_wire_may_pass(error)) {
        bio->send_error = error;
    }
    bio->sends = sent >= 0 && (size_t)sent == length;
    return sent > 0 ? (size_t)sent : 0;
}

static int
write_output(BIO *self, const char *data, int length)
{
    struct ku_tlsbio *bio = crypto.get_data(self);
    crypto.clear_flags(self, BIO_FLAGS_RETRY);
    if (length <= 0) {
        return 0;
    }
    size_t sent = bio->sends ? send_directly(bio, data, (size_t)length) : 0;
    if (sent < (size_t)length
        && ku_buffer_append(&bio->output, data + sent, (size_t)length - sent) < 0) {
        if (sent > 0) {
            return (int)sent;
        }
        crypto.set_flags(self, BIO_FLAGS_WRITE | BIO_FLAGS_SHOULD_RETRY);
        return -1; /* out of memory: try again, and nothing is lost */
    }
    return length;
}

static long
control_bio(BIO *self, int command, long number, void *pointer)
{
    struct ku_tlsbio *bio = crypto.get_data(self);
    (void)number;
    (void)pointer;
    switch (command) {
    case BIO_CTRL_EOF: return bio->at_end && ku_buffer_length(&bio->input) == 0;
    case BIO_CTRL_PENDING: return (long)bio->whole_bytes;
    case BIO_CTRL_WPENDING: return (long)ku_buffer_length(&bio->output);
    case BIO_CTRL_FLUSH:
        if (bio->flushed == 0) {
            bio->flushed = ku_buffer_length(&bio->output);
        }
        return 1;
    case BIO_CTRL_DUP: return 1;
    default: return 0;
    }
}

static int
destroy_bio(BIO *self)
{
    struct ku_tlsbio *bio = crypto.get_data(self);
    if (bio != NULL) {
        free(bio->input.memory);
        free(bio->output.memory);
        free(bio);
    }
    return 1;
}

static BIO_METHOD *
make_method(const struct ku_libssl *libssl)
{
    crypto.get_data = libssl->BIO_get_data;
    crypto.set_flags = libssl->BIO_set_flags;
    crypto.clear_flags = libssl->BIO_clear_flags;
    BIO_METHOD *method = libssl->BIO_meth_new(BIO_TYPE_MEM, NAME);
    if (method != NULL) {
        (void)libssl->BIO_meth_set_read(method, read_input);
        (void)libssl->BIO_meth_set_write(method, write_output);
        (void)libssl->BIO_meth_set_ctrl(method, control_bio);
        (void)libssl->BIO_meth_set_destroy(method, destroy_bio);
    }
    return method;
}

/* One for all interpreters, which may import at the same time.  It is never freed: a
   BIO may outlive everything that could free its method. */
BIO_METHOD *
ku_tlsbio_method(const struct ku_libssl *libssl)
{
    static ku_mutex once = KU_MUTEX_INITIALIZER;
    static BIO_METHOD *method;
    ku_mutex_lock(&once);
    if (method == NULL) {
        method = make_method(libssl);
    }
    BIO_METHOD *result = method;
    ku_mutex_unlock(&once);
    return result;
}

int
ku_tlsbio_install(const struct ku_libssl *libssl, BIO_METHOD *method, SSL *ssl)
{
    struct ku_tlsbio *data = calloc(1, sizeof(*data));
    BIO *bio = data != NULL ? libssl->BIO_new(method) : NULL;
    if (bio == NULL) {
        free(data);
        return -1;
    }
    libssl->BIO_set_data(bio, data);
    libssl->BIO_set_init(bio, 1);
    libssl->SSL_set_bio(ssl, bio, bio);
    (void)libssl->SSL_ctrl(ssl, SSL_CTRL_SET_READ_AHEAD, 1, NULL);
    return 0;
}

struct ku_tlsbio *
ku_tlsbio_of(const struct ku_libssl *libssl, SSL *ssl)
{
    BIO *bio = libssl->SSL_get_rbio(ssl);
    return bio != NULL && strcmp(libssl->BIO_method_name(bio), NAME) == 0
               ? libssl->BIO_get_data(bio)
               : NULL;
}

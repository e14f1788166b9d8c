/* Finds the loaded library that _ssl is bound to, and functions in it.  Each platform has
   its own file. */
#ifndef PYKEYUPDATE_LOCATE_H
#define PYKEYUPDATE_LOCATE_H

#include <stddef.h>

/* A library in this process that was loaded before us and is never unloaded. */
struct ku_image {
    void *handle;    /* what the platform's symbol lookup takes */
    void *base;      /* where it is mapped; identifies the library */
    void *inside;    /* an address in it (ELF) */
    char path[1024]; /* for messages and for `doctor` */
    const char *how; /* how it was found, in words */
    int is_hidden;   /* it exports nothing; its functions are found in another way */
};

struct ku_function {
    const char *name;
    void *address; /* NULL: not there */
};

enum ku_located {
    KU_LOCATED = 0,
    KU_LOCATED_HIDDEN,     /* it exports nothing, and there is no other way */
    KU_LOCATED_NOT_LOADED, /* the loader does not know the object */
};

/* Find the library that provides `imported` to the code at address `anchor`.  Loads
   nothing, and searches for no file name. */
enum ku_located ku_locate(struct ku_image *image, void *anchor, const char *imported);

/* Find functions in that library; never another library's.  Returns NULL, or why none can
   be found, in words that follow a colon. */
const char *ku_locate_functions(const struct ku_image *image,
                                struct ku_function *functions, size_t count);

#endif

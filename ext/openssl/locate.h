/* Finds the loaded library that _ssl is bound to.  Each platform has its own file. */
#ifndef PYKEYUPDATE_LOCATE_H
#define PYKEYUPDATE_LOCATE_H

/* A library in this process that was loaded before us and is never unloaded. */
struct ku_image {
    void *handle;    /* what the platform's symbol lookup takes */
    void *base;      /* where it is mapped; identifies the library */
    char path[1024]; /* for messages and for `doctor` */
    const char *how; /* how it was found, in words */
};

enum ku_located {
    KU_LOCATED = 0,
    KU_LOCATED_HIDDEN,     /* it is in the caller's object and exports nothing */
    KU_LOCATED_NOT_LOADED, /* the loader does not know the object */
};

/* Find the library that provides `imported` to the code at address `anchor`.  Loads
   nothing, and searches for no file name. */
enum ku_located ku_locate(struct ku_image *image, void *anchor, const char *imported);

/* The address of the function `name` in that library, or NULL; never another
   library's. */
void *ku_locate_function(const struct ku_image *image, const char *name);

#endif

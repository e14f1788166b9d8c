/* Which loaded library is _ssl bound to?  One answer per platform. */
#ifndef PYKEYUPDATE_LOCATE_H
#define PYKEYUPDATE_LOCATE_H

/* A library of this process, loaded before us and never unloaded. */
struct ku_image {
    void *handle;    /* what the platform's symbol look-up takes */
    void *base;      /* where it is mapped: two images are one if these agree */
    char path[1024]; /* for messages and for `doctor` */
    const char *how; /* in words, how it was found */
};

enum ku_located {
    KU_LOCATED = 0,
    KU_LOCATED_HIDDEN,     /* the caller contains it and exports nothing */
    KU_LOCATED_NOT_LOADED, /* the loader does not know the object */
};

/* Find the library that `imported`, as called by the code at address `anchor`,
   is bound to.  Nothing is loaded, nothing is searched by file name. */
enum ku_located ku_locate(struct ku_image *image, void *anchor, const char *imported);

/* The function `name` of that library, or NULL.  Never another library's. */
void *ku_locate_function(const struct ku_image *image, const char *name);

#endif

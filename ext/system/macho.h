/* Finds functions by name in the symbol table of a Mach-O image that the loader has mapped.

   The table lies in the image itself (__LINKEDIT), and has what is not exported as well,
   unless it was stripped.  The kernel and dyld have checked the load commands; what they
   say of the table is checked here, and nothing outside of __LINKEDIT is read.

   For macOS, and wherever else <mach-o/loader.h> is to be had: a test reads such images on
   Linux. */
#ifndef PYKEYUPDATE_MACHO_H
#define PYKEYUPDATE_MACHO_H

#if __has_include(<mach-o/loader.h>)

#  include <mach-o/loader.h>
#  include <stddef.h>

struct ku_macho_function {
    const char *name;    /* looked for, as in C: without the leading underscore */
    size_t index;        /* the caller's own; the order changes */
    const void *address; /* in memory; NULL if it was not found */
};

/* Find each function, in one pass over the table.  Returns NULL; or why none of what
   was found may be used, for a message. */
const char *ku_macho_find(const struct mach_header_64 *image,
                          struct ku_macho_function *functions, size_t count);

#endif
#endif

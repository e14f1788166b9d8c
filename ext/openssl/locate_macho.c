/* macOS.

   Mach-O libraries are bound in a two-level namespace: each undefined symbol of _ssl
   names the library that it comes from, so another OpenSSL in the process cannot get in
   between.  dlsym() on _ssl's own handle searches _ssl and then its dependencies, and
   so returns what _ssl itself calls.

   In interpreters from python-build-standalone, OpenSSL is linked into the image that
   holds _ssl, and exports nothing.  There the functions are found by name in that image's
   symbol table, which lies in memory beside its code.  A name must lead to one function
   only; what libssl.c, sslobject.c and states.c prove of any library comes on top. */
#ifdef __APPLE__

#  include "openssl/locate.h"
#  include "system/macho.h"

#  include <dlfcn.h>
#  include <stddef.h>
#  include <stdlib.h>
#  include <string.h>

/* Off, because it has never run: a job of tests.yml builds with 1, and once that passes
   this may be removed. */
#  ifndef PYKEYUPDATE_MACHO_SYMBOLS
#    define PYKEYUPDATE_MACHO_SYMBOLS 0
#  endif

static void *
open_image(const char *path)
{
    return dlopen(path, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
}

enum ku_located
ku_locate(struct ku_image *image, void *anchor, const char *imported)
{
    Dl_info caller, owner;
    if (!dladdr(anchor, &caller)) {
        return KU_LOCATED_NOT_LOADED;
    }
    void *handle = open_image(caller.dli_fname);
    if (handle == NULL) {
        return KU_LOCATED_NOT_LOADED;
    }
    void *function = dlsym(handle, imported);
    image->is_hidden = function == NULL;
    if ((image->is_hidden && !PYKEYUPDATE_MACHO_SYMBOLS)
        || !dladdr(image->is_hidden ? anchor : function, &owner)) {
        return KU_LOCATED_HIDDEN;
    }
    image->how = image->is_hidden ? "the symbol table of the image that holds _ssl, as "
                                    "OpenSSL is linked in and hidden"
                 : owner.dli_fbase == caller.dli_fbase
                     ? "contained in the object that holds _ssl"
                     : "the library that _ssl is linked to";
    image->base = owner.dli_fbase;
    image->handle = open_image(owner.dli_fname);
    strlcpy(image->path, owner.dli_fname, sizeof(image->path));
    return image->handle != NULL ? KU_LOCATED : KU_LOCATED_NOT_LOADED;
}

static void *
exported_function(const struct ku_image *image, const char *name)
{
    Dl_info owner;
    void *function = dlsym(image->handle, name);
    if (function == NULL || !dladdr(function, &owner)
        || owner.dli_fbase != image->base) {
        return NULL;
    }
    return function;
}

static const char *
hidden_functions(const struct ku_image *image, struct ku_function *functions,
                 size_t count)
{
    struct ku_macho_function *found = calloc(count, sizeof(*found));
    if (found == NULL) {
        return "there is no memory to read it";
    }
    for (size_t i = 0; i < count; i++) {
        found[i].name = functions[i].name;
        found[i].index = i;
    }
    const char *failure = ku_macho_find(image->base, found, count);
    for (size_t i = 0; i < count && failure == NULL; i++) {
        functions[found[i].index].address = (void *)found[i].address;
    }
    free(found);
    return failure;
}

const char *
ku_locate_functions(const struct ku_image *image, struct ku_function *functions,
                    size_t count)
{
    if (image->is_hidden) {
        return hidden_functions(image, functions, count);
    }
    for (size_t i = 0; i < count; i++) {
        functions[i].address = exported_function(image, functions[i].name);
    }
    return NULL;
}

#endif

#include "system/macho.h"

#if __has_include(<mach-o/loader.h>)

#  include <mach-o/nlist.h>
#  include <stdint.h>
#  include <stdlib.h>
#  include <string.h>

/* What the load commands say, as far as it matters. */
struct layout {
    const struct segment_command_64 *text, *linkedit;
    const struct symtab_command *symtab;
    const struct section_64 *code; /* __TEXT,__text */
};

static int
is_named(const char name[16], const char *expected)
{
    return strncmp(name, expected, 16) == 0;
}

static void
take_segment(struct layout *layout, const struct segment_command_64 *segment)
{
    const struct section_64 *sections = (const struct section_64 *)(segment + 1);
    if (is_named(segment->segname, SEG_LINKEDIT)) {
        layout->linkedit = segment;
    }
    if (is_named(segment->segname, SEG_TEXT)) {
        layout->text = segment;
        for (uint32_t i = 0; i < segment->nsects; i++) {
            if (is_named(sections[i].sectname, SECT_TEXT)) {
                layout->code = &sections[i];
            }
        }
    }
}

/* Returns 0 if something is missing that every image has. */
static int
read_commands(const struct mach_header_64 *image, struct layout *layout)
{
    const char *at = (const char *)(image + 1);
    for (uint32_t i = 0; image->magic == MH_MAGIC_64 && i < image->ncmds; i++) {
        const struct load_command *command = (const struct load_command *)at;
        if (command->cmd == LC_SEGMENT_64) {
            take_segment(layout, (const struct segment_command_64 *)at);
        }
        else if (command->cmd == LC_SYMTAB) {
            layout->symtab = (const struct symtab_command *)at;
        }
        at += command->cmdsize;
    }
    return layout->symtab != NULL && layout->linkedit != NULL && layout->code != NULL;
}

/* Where a part of the file lies in memory, or NULL if it does not lie in __LINKEDIT
   entirely.  The image begins where __TEXT does. */
static const void *
linked_at(const struct mach_header_64 *image, const struct layout *layout,
          uint64_t offset, uint64_t size)
{
    const struct segment_command_64 *linkedit = layout->linkedit;
    uint64_t within = offset - linkedit->fileoff; /* wraps below it */
    if (within > linkedit->filesize || size > linkedit->filesize - within) {
        return NULL;
    }
    return (const char *)image + (linkedit->vmaddr - layout->text->vmaddr) + within;
}

struct symbols {
    const struct nlist_64 *table;
    size_t count;
    const char *names;
    size_t names_size; /* the last byte is 0 */
};

static int
find_symbols(const struct mach_header_64 *image, const struct layout *layout,
             struct symbols *symbols)
{
    const struct symtab_command *symtab = layout->symtab;
    symbols->count = symtab->nsyms;
    symbols->table = linked_at(image, layout, symtab->symoff,
                               (uint64_t)symtab->nsyms * sizeof(struct nlist_64));
    symbols->names_size = symtab->strsize;
    symbols->names = linked_at(image, layout, symtab->stroff, symtab->strsize);
    return symbols->table != NULL && symbols->names != NULL
           && (uintptr_t)symbols->table % sizeof(uint64_t) == 0
           && symbols->names_size != 0
           && symbols->names[symbols->names_size - 1] == '\0';
}

static int
compare_names(const void *a, const void *b)
{
    const struct ku_macho_function *left = a, *right = b;
    return strcmp(left->name, right->name);
}

/* The name of a symbol that is code of this image, or NULL. */
static const char *
name_of_code(const struct layout *layout, const struct symbols *symbols,
             const struct nlist_64 *symbol)
{
    const struct section_64 *code = layout->code;
    if ((symbol->n_type & N_STAB) || (symbol->n_type & N_TYPE) != N_SECT
        || symbol->n_value - code->addr >= code->size /* wraps below it */
        || symbol->n_un.n_strx >= symbols->names_size) {
        return NULL;
    }
    const char *name = symbols->names + symbol->n_un.n_strx;
    return name[0] == '_' ? name + 1 : NULL;
}

const char *
ku_macho_find(const struct mach_header_64 *image, struct ku_macho_function *functions,
              size_t count)
{
    struct layout layout = {0};
    struct symbols symbols;
    if (!read_commands(image, &layout) || !find_symbols(image, &layout, &symbols)) {
        return "it has no symbol table";
    }
    char begins[256] = {0}; /* most names differ in the first letter already */
    for (size_t i = 0; i < count; i++) {
        begins[(unsigned char)functions[i].name[0]] = 1;
    }
    qsort(functions, count, sizeof(*functions), compare_names);
    size_t n_found = 0;
    for (size_t i = 0; i < symbols.count; i++) {
        const struct nlist_64 *symbol = &symbols.table[i];
        const struct ku_macho_function key = {
            .name = name_of_code(&layout, &symbols, symbol)};
        if (key.name == NULL || !begins[(unsigned char)key.name[0]]) {
            continue;
        }
        struct ku_macho_function *function =
            bsearch(&key, functions, count, sizeof(*functions), compare_names);
        if (function == NULL) {
            continue;
        }
        const void *address =
            (const char *)image + (symbol->n_value - layout.text->vmaddr);
        if (function->address != NULL && function->address != address) {
            return "its symbol table has several functions of one name";
        }
        function->address = address;
        n_found++;
    }
    return n_found != 0 ? NULL : "its symbol table does not name them";
}

#endif

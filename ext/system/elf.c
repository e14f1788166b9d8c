#include "system/elf.h"

#if !defined(_WIN32) && !defined(__APPLE__)

#  include <elf.h>
#  include <stdint.h>
#  include <stdlib.h>
#  include <string.h>

/* An array in the file, or NULL if it does not lie in it entirely. */
static const void *
array_at(const struct ku_elf *elf, uint64_t offset, uint64_t count, size_t entry)
{
    if (offset % sizeof(ElfW(Addr)) != 0 || offset > elf->size
        || count > (elf->size - offset) / entry) {
        return NULL;
    }
    return elf->bytes + offset;
}

/* The file's header, if it is one of this machine's word size and byte order. */
static const ElfW(Ehdr) * header_of(const struct ku_elf *elf)
{
    static const unsigned char ident[] = {
        ELFMAG0,
        ELFMAG1,
        ELFMAG2,
        ELFMAG3,
        sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32,
        __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB,
    };
    const ElfW(Ehdr) *header = array_at(elf, 0, 1, sizeof(*header));
    return header != NULL && memcmp(header->e_ident, ident, sizeof(ident)) == 0 ? header
                                                                                : NULL;
}

static const ElfW(Phdr)
    * segments_of(const struct ku_elf *elf, const ElfW(Ehdr) * header)
{
    return header->e_phentsize == sizeof(ElfW(Phdr))
               ? array_at(elf, header->e_phoff, header->e_phnum, sizeof(ElfW(Phdr)))
               : NULL;
}

int
ku_elf_is_of(const struct ku_elf *elf, const ElfW(Phdr) * headers, size_t count)
{
    const ElfW(Ehdr) *header = header_of(elf);
    const ElfW(Phdr) *segments = header != NULL ? segments_of(elf, header) : NULL;
    return segments != NULL && header->e_phnum == count
           && memcmp(segments, headers, count * sizeof(*segments)) == 0;
}

struct symbols {
    const ElfW(Sym) * table;
    size_t count;
    const char *names;
    size_t names_size; /* the last byte is 0 */
};

static int
find_symbols(const struct ku_elf *elf, const ElfW(Ehdr) * header,
             struct symbols *symbols)
{
    const ElfW(Shdr) *sections =
        header->e_shentsize == sizeof(*sections)
            ? array_at(elf, header->e_shoff, header->e_shnum, sizeof(*sections))
            : NULL;
    size_t i = 0;
    while (sections != NULL && i < header->e_shnum
           && sections[i].sh_type != SHT_SYMTAB) {
        i++;
    }
    if (sections == NULL || i == header->e_shnum
        || sections[i].sh_link >= header->e_shnum) {
        return 0;
    }
    const ElfW(Shdr) *table = &sections[i], *names = &sections[table->sh_link];
    symbols->count = table->sh_size / sizeof(ElfW(Sym));
    symbols->table = array_at(elf, table->sh_offset, symbols->count, sizeof(ElfW(Sym)));
    symbols->names_size = names->sh_size;
    if (table->sh_entsize != sizeof(ElfW(Sym)) || symbols->table == NULL
        || names->sh_type != SHT_STRTAB || names->sh_size == 0
        || names->sh_offset > elf->size
        || names->sh_size > elf->size - names->sh_offset) {
        return 0;
    }
    symbols->names = (const char *)elf->bytes + names->sh_offset;
    return symbols->names[symbols->names_size - 1] == '\0';
}

static int
compare_names(const void *a, const void *b)
{
    const struct ku_elf_function *left = a, *right = b;
    return strcmp(left->name, right->name);
}

/* The code of a symbol in the file, or NULL if it does not lie in one segment that the
   loader maps from the file, to be read and executed. */
static const unsigned char *
code_of(const struct ku_elf *elf, const ElfW(Sym) * symbol)
{
    const ElfW(Ehdr) *header = header_of(elf);
    const ElfW(Phdr) *segments = segments_of(elf, header);
    for (size_t i = 0; segments != NULL && i < header->e_phnum; i++) {
        const ElfW(Phdr) *segment = &segments[i];
        ElfW(Addr) within = symbol->st_value - segment->p_vaddr; /* wraps below it */
        if (segment->p_type == PT_LOAD && (segment->p_flags & PF_X)
            && (segment->p_flags & PF_R) && within <= segment->p_filesz
            && symbol->st_size <= segment->p_filesz - within
            && segment->p_offset <= elf->size
            && segment->p_filesz <= elf->size - segment->p_offset) {
            return elf->bytes + segment->p_offset + within;
        }
    }
    return NULL;
}

/* Returns 0 if the name has another function already. */
static int
take_symbol(const struct ku_elf *elf, const ElfW(Sym) * symbol,
            struct ku_elf_function *function)
{
    if (function->size != 0) {
        return function->address == symbol->st_value
               && function->size == symbol->st_size;
    }
    function->code = code_of(elf, symbol);
    function->address = symbol->st_value;
    function->size = function->code != NULL ? symbol->st_size : 0;
    return 1;
}

/* Could this be one of them?  Most names differ in the first letter already. */
static int
is_candidate(const struct symbols *symbols, const ElfW(Sym) * symbol,
             const char begins[256])
{
    return (symbol->st_info & 0xf) == STT_FUNC && symbol->st_shndx != SHN_UNDEF
           && symbol->st_size != 0 && symbol->st_name < symbols->names_size
           && begins[(unsigned char)symbols->names[symbol->st_name]];
}

const char *
ku_elf_find(const struct ku_elf *elf, struct ku_elf_function *functions, size_t count)
{
    const ElfW(Ehdr) *header = header_of(elf);
    struct symbols symbols;
    if (header == NULL || !find_symbols(elf, header, &symbols)) {
        return "it has no symbol table";
    }
    char begins[256] = {0};
    for (size_t i = 0; i < count; i++) {
        begins[(unsigned char)functions[i].name[0]] = 1;
    }
    qsort(functions, count, sizeof(*functions), compare_names);
    size_t n_found = 0;
    for (size_t i = 0; i < symbols.count; i++) {
        const ElfW(Sym) *symbol = &symbols.table[i];
        if (!is_candidate(&symbols, symbol, begins)) {
            continue;
        }
        const struct ku_elf_function key = {.name = symbols.names + symbol->st_name};
        struct ku_elf_function *function =
            bsearch(&key, functions, count, sizeof(*functions), compare_names);
        if (function == NULL) {
            continue;
        }
        if (!take_symbol(elf, symbol, function)) {
            return "its symbol table has several functions of one name";
        }
        n_found += function->size != 0;
    }
    return n_found != 0 ? NULL : "its symbol table does not name them";
}

#endif

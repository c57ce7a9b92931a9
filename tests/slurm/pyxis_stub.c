// A SPANK plugin that takes pyxis' --container-* options and hands their values to the tasks as PYXIS_STUB_*, so that what a script asks of
// pyxis can be seen. It starts no container.
#include <slurm/spank.h>
#include <stdlib.h>
#include <string.h>

SPANK_PLUGIN(pyxis_stub, 1)

static char *values[16];

static int keep(int index, const char *argument, int remote) {
  (void)remote;
  free(values[index]);
  values[index] = strdup(argument && *argument ? argument : "1");
  return 0;
}

#define OPTION(name, argument, takes_one, index) {name, argument, "[pyxis stub] " name, takes_one, index, keep}
static struct spank_option options[] = {
    OPTION("container-image", "IMAGE", 1, 0),      OPTION("container-mounts", "SRC:DST[:FLAGS]", 1, 1),
    OPTION("container-workdir", "PATH", 1, 2),     OPTION("container-name", "NAME", 1, 3),
    OPTION("container-save", "PATH", 1, 4),        OPTION("container-mount-home", 0, 0, 5),
    OPTION("no-container-mount-home", 0, 0, 6),    OPTION("container-remap-root", 0, 0, 7),
    OPTION("no-container-remap-root", 0, 0, 8),    OPTION("container-entrypoint", 0, 0, 9),
    OPTION("no-container-entrypoint", 0, 0, 10),   OPTION("container-writable", 0, 0, 11),
    OPTION("container-readonly", 0, 0, 12),        OPTION("container-env", "NAMES", 1, 13),
    SPANK_OPTIONS_TABLE_END};

int slurm_spank_init(spank_t spank, int argc, char **argv) {
  (void)argc;
  (void)argv;
  for (int i = 0; options[i].name; i++) spank_option_register(spank, &options[i]);
  return 0;
}

int slurm_spank_task_init(spank_t spank, int argc, char **argv) {
  (void)argc;
  (void)argv;
  for (int i = 0; options[i].name; i++) {
    if (!values[options[i].val]) continue;
    char key[64] = "PYXIS_STUB_";
    char *end = key + strlen(key);
    for (const char *c = options[i].name; *c; c++) *end++ = *c == '-' ? '_' : (char)(*c - 'a' + 'A');
    *end = 0;
    spank_setenv(spank, key, values[options[i].val], 1);
  }
  return 0;
}

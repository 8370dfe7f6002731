/* Why a command failed: by Redis' own word, or by how its connection ended. What Redis says decides
 * what is useful to do. */
#ifndef STORE_REDIS_TROUBLE_H
#define STORE_REDIS_TROUBLE_H

#include <stdbool.h>

enum redis_trouble {
    TROUBLE_NONE,
    TROUBLE_UNREACHABLE, /* no connection, or it was lost */
    TROUBLE_SLOW,        /* connected, and no answer in time */
    TROUBLE_GARBLED,     /* not what Redis would answer */
    TROUBLE_LOADING,     /* it reads its data from disk */
    TROUBLE_READONLY,    /* a replica: after a fail-over, what used to be the master */
    TROUBLE_MASTERDOWN,  /* a replica without its master */
    TROUBLE_CLUSTERDOWN, /* a node of a Cluster that does not stand */
    TROUBLE_CLUSTER,     /* a node of a Cluster: keys of several slots in one command */
    TROUBLE_MOVED,       /* a node of a Cluster: the slot is another one's */
    TROUBLE_ASK,         /* a node of a Cluster: the slot is on its way to another one */
    TROUBLE_TRYAGAIN,    /* a node of a Cluster: of these keys some have gone that way */
    TROUBLE_NOMASTER,    /* no Sentinel names a master */
    TROUBLE_NOREPLICAS,  /* a master whose replicas have gone, maybe because it is one no more */
    TROUBLE_OOM,         /* maxmemory is reached */
    TROUBLE_MISCONF,     /* it cannot write to its disk */
    TROUBLE_BUSY,        /* a script runs */
    TROUBLE_AUTH,        /* user, password or permissions */
    TROUBLE_TLS,         /* no TLS that both accept */
    TROUBLE_NOSCRIPT,    /* no trouble: the script has to be sent whole */
    TROUBLE_REFUSED,     /* any other error */
    TROUBLE__MAX
};

/* What an error reply says: the trouble by its first word, or, of a script of a Redis before 7, by
 * the word of the command inside. */
enum redis_trouble redis_trouble_of(const char *error);

/* Its word in /readyz ("readonly"): static, "" for none. */
const char *redis_trouble_word(enum redis_trouble trouble);

/* Whether the server cannot serve as it is, so that another one may be behind its address by now:
 * then a new connection is the way back. */
bool redis_trouble_ends_connection(enum redis_trouble trouble);

/* Whether the command was refused without being done because of where it was sent, or when, so that
 * it is safe to send it again. */
bool redis_trouble_is_elsewhere(enum redis_trouble trouble);

/* Log an error reply of node to command (its name) by its first word and our sentence about it,
 * once in ten seconds for each word: the rest of the text may quote arguments. */
void redis_trouble_log(enum redis_trouble trouble, const char *node, const char *command,
                       const char *error);

#endif

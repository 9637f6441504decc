# Checks the imports of production code: their direction, that files do not import each other
# in a cycle, and that a file whose header says "Pure" has no access to the system. Prints
# `file:line: rule` for each violation and exits with 1: `awk -f imports.awk src/FILE…`.

BEGIN {
    # A module imports modules of lower levels only; those of level 1 import each other.
    n = split("names 1 process 1 logging 1 flags 1 json 1 text 1 http 1 fs 1 event 1 " \
        "kube 2 redirect 2 decision 3 node 3 agent_api 3 cni 4 agent 4 cmd 4 applet 5 " \
        "lib 6 main 7", word, " ")
    for (i = 1; i < n; i += 2) level[word[i]] = word[i + 1]
    for (i = 1; i < ARGC; i++) {
        module = ARGV[i]
        gsub(/^src\/|(\/mod)?\.rs$/, "", module)
        gsub("/", "::", module)
        if (module ~ /(^|::)(testing|tests)(::|$)/) { ARGV[i] = ""; continue }
        module_of[ARGV[i]] = module
        file_of[module] = ARGV[i]
    }
}

function fail(line, rule) { print line ": " rule; failed = 1 }
function area(module) { sub(/::.*/, "", module); return module }
function child(module, name) { return module == "" || module == "lib" ? name : module "::" name }

# Returns the module that a path names an item of, "" for a path into another crate.
function resolve(path,    at, name, i, n) {
    n = split(path, name, "::")
    at = module_of[FILENAME]
    i = name[1] == "crate" || name[1] == "self" ? 2 : 1
    if (name[1] == "crate") at = ""
    else if (name[1] == "super")
        for (; name[i] == "super"; i++) { if (!sub(/::[^:]+$/, "", at)) at = "" }
    else if (name[1] != "self" && !(child(at, name[1]) in file_of)) return ""
    for (; child(at, name[i]) in file_of; i++) at = child(at, name[i])
    return at == "" ? name[i] : at
}

function check(path, line,    at, from, to) {
    if (FILENAME in pure && path ~ /^(nix|ureq|log|clap|std::(fs|net|env|process))(::|$)/ \
            && path !~ /^std::net::[A-Za-z0-9]*Addr([A-Z:]|$)/)
        fail(line, "a pure file uses " path)
    at = resolve(path)
    if (at == "" || at == module_of[FILENAME]) return
    from = area(module_of[FILENAME])
    to = area(at)
    if (!(to in level)) fail(line, from " imports " path ": not in the table of scripts/imports.awk")
    else if (from != to && level[from] <= level[to] && level[to] > 1)
        fail(line, from " must not import " to)
    if (at in file_of && !((FILENAME, file_of[at]) in edge)) {
        edge[FILENAME, file_of[at]] = line
        imports[FILENAME] = imports[FILENAME] " " file_of[at]
    }
}

# Depth-first search: an import of a file in `way`, the path from the first file, is a cycle.
function visit(file, way,    to, i, n) {
    way = way " " file
    n = split(imports[file], to, " ")
    for (i = 1; i <= n; i++)
        if (index(way " ", " " to[i] " "))
            fail(edge[file, to[i]], "import cycle:" substr(way, index(way " ", " " to[i] " ")) " " to[i])
        else if (!(to[i] in visited)) visit(to[i], way)
    visited[file]
}

FNR == 1 && !(area(module_of[FILENAME]) in level) {
    fail(FILENAME ":1", area(module_of[FILENAME]) ": not in the table of scripts/imports.awk")
}
/^\/\/!/ && /[^A-Za-z]Pure([^A-Za-z]|$)/ { pure[FILENAME] }
/^ *\/\// { next }
# A test-only item ends with its first line, or with the brace indented like its attribute.
/^ *#\[cfg\((test|any\(test, fuzzing\))\)\]/ { match($0, /^ */); end = substr($0, 1, RLENGTH) "}"; first = 1; next }
end != "" {
    if (index($0, end) == 1 || first && /;$/) end = ""
    if (!/^ *#\[/) first = 0
    next
}
{ gsub(/'"'|"([^"\\]|\\.)*"/, ""); sub(/\/\/.*/, "") }
list != "" || /^ *(pub(\([a-z]+\))? )?use / {
    if (list == "") start = FILENAME ":" FNR
    list = list $0
    if (!/;/) next
    gsub(/^ *(pub(\([a-z]+\))? )?use |[ ;}]| as [A-Za-z0-9_]+/, "", list)
    prefix = list
    if (!sub(/\{.*/, "", prefix)) prefix = ""
    if (gsub(/\{/, "{", list) > 1) fail(start, "nested braces: write one use for each module")
    n = split(substr(list, length(prefix) + 1 + (prefix != "")), item, ",")
    for (i = 1; i <= n; i++) if (item[i] != "") check(prefix item[i], start)
    list = ""
    next
}
{
    for (; match($0, /[A-Za-z_][A-Za-z0-9_]*(::[A-Za-z_][A-Za-z0-9_]*)+/); $0 = substr($0, RSTART + RLENGTH))
        check(substr($0, RSTART, RLENGTH), FILENAME ":" FNR)
}
END {
    for (i = 1; i < ARGC; i++)
        if (ARGV[i] in module_of && !(ARGV[i] in visited)) visit(ARGV[i])
    exit failed
}

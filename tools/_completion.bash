# Completion of the command nasdet in bash: eval "$(nasdet completion bash)"
_nasdet() {
    local reply line
    reply=()
    while IFS= read -r line; do
        reply+=("$line")
    done < <("${1/#\~/$HOME}" _complete bash "$COMP_WORDBREAKS" \
        "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
    # Finished words bring their own space. Readline adds it, or a slash, to file names.
    [[ ${reply[0]-} == files ]] && compopt -o filenames +o nospace 2>/dev/null
    COMPREPLY=("${reply[@]:1}")
}
complete -o nospace -F _nasdet nasdet

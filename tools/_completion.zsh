# Completion of the command nasdet in zsh: eval "$(nasdet completion zsh)"
_nasdet() {
    local -a reply finished open
    local ret=1
    reply=("${(@f)$(${(Q)~words[1]} _complete zsh "${(@Q)words[1,CURRENT-1]}" "${(Q)PREFIX}" \
        2>/dev/null)}")
    [[ -n ${reply[2]} ]] || return 1
    compset -p ${reply[2]}
    if [[ ${reply[1]} == files ]]; then
        if [[ $IPREFIX == *[\[,] ]]; then
            _files -S ''  # more entries of the list may follow
        else
            _files
        fi
        return
    fi
    reply=("${(@)reply[3,-1]}")
    finished=(${(M)reply:#* })  # these end in a space
    open=(${reply:#* })
    compadd -- "${(@)finished% }" && ret=0
    compadd -S '' -- "${(@)open}" && ret=0
    return ret
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _nasdet nasdet

# Completion of calcc for bash. It needs the package bash-completion.

_calcc() {
    local cur prev words cword split
    _init_completion -s -n : || return

    # Of letters that share a dash, the last takes the value.
    [[ $prev == -[!-]* ]] && prev=-${prev: -1}
    case $prev in
        -U | --unix-socket | --ssl-cert | --ssl-key | --ssl-trustfile)
            _filedir
            ;;
        --fold)
            COMPREPLY=($(compgen -W 'SOMA ADD MUL MIN MAX MEDIA MEAN' -- "$cur"))
            ;;
        --ssl-servername)
            _known_hosts_real -- "$cur"
            ;;
        -e | --request | --each | -F | --field-separator | -q | --eof-timeout | --retry | \
            -w | --timeout) ;;
        *)
            if [[ $cur == -* ]]; then
                COMPREPLY=($(compgen -W '
                    -4 --ipv4 -6 --ipv6 -e --request -F --field-separator -h --help
                    -N --half-close -q --eof-timeout -Q --quiet -u --udp -U --unix-socket
                    -v --verbose -V --version -w --timeout -z --check --each --fold --retry
                    --skip-bad --ssl --ssl-cert --ssl-key --ssl-noverify --ssl-servername
                    --ssl-trustfile' -- "$cur"))
            else
                _known_hosts_real -- "$cur"
            fi
            ;;
    esac
} &&
    complete -F _calcc calcc

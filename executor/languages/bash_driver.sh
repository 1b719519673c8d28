# What the one bash of a session runs: read a cell from the channel, evaluate it, say how it ended, remember the state.
#
# bash.py drops the comments and joins the lines with blanks: an `eval` counts a cell's lines from its own, which must be
# the first. 57 is the channel, 58 and 59 keep the stdout and stderr that the shell was born with. While a cell runs the
# three are closed, bash's own copies of them are close-on-exec, and 0 to 2 are put back after it: a cell cannot hand the
# channel to a child, and its `exec >file` ends with it.
# Strings that are evaluated say \builtin, for an alias of that name would reach them.
# No functions and few variables, all __cell_*: `declare -F` and `set` are for the guest's own.
#
# $1 is the state's file: "cell 7 a" says that cell 7 came to its end, "exit 7 a" that it ended the shell, and that the
# state is in the file beside it whose name ends in a. The two files take turns, so that a half-written one is never read.
# They are opened with <>, for some file systems take milliseconds to empty a file, and end in a NUL. Between it and a
# second one stands what cannot be taken over, for the reader: running jobs and open descriptors (bash has its own from 10).

__cell_file=$1;
__cell_folder=${1%/.tmp/*};
set --;
shopt -s expand_aliases;
builtin trap '' INT;

# The state as commands, from what declares itself first to what would disturb the reading of the rest last. It runs after
# every cell, and at the exit, where `declare` sees the variables of the function that exits as well.
__cell_save='
  case $__cell_side in a) __cell_side=b;; *) __cell_side=a;; esac;
  {
    \builtin printf ": %s\n" "$__cell_folder";
    \builtin shopt -p;
    \builtin printf "cd -- %q\n" "$PWD";
    \builtin umask -p;
    [[ $__cell_marker == exit && ${FUNCNAME[0]} ]] || __cell_arguments=("$@");
    \builtin printf "set --"; \builtin printf " %s" "${__cell_arguments[@]@Q}"; \builtin echo;
    \builtin declare -p;
    \builtin declare -f;
    \builtin declare -F;
    \builtin trap -p;
    \builtin alias -p;
    \builtin shopt -po;
    \builtin printf "\0";
    \builtin jobs -r;
    for __cell_open in 3 4 5 6 7 8 9;
    do
      { \builtin : >&"$__cell_open"; } 2>/dev/null && \builtin printf "open %s\n" "$__cell_open";
    done;
    \builtin printf "\0";
  } 1<>"$__cell_file.$__cell_side" &&
  \builtin printf "%-30s\n" "$__cell_marker $__cell_number $__cell_side" 1<>"$__cell_file";';

# At the exit the guest's own trap comes first, and sees the status.
__cell_bye='
  \builtin eval "$__cell_guest_trap";
  { \builtin set +euvx; \builtin trap - EXIT INT; __cell_guest_trap= __cell_marker=exit; \builtin eval "$__cell_save"; } 2>/dev/null;';

# What a former shell left: variables, functions, options and folder. Where the session's folder has another path by now,
# as a snapshot of it may, all that names the former path is given the new one.
{
  builtin read -r __cell_marker __cell_number __cell_side <"$__cell_file" &&
  IFS= builtin read -r -d '' __cell_code <"$__cell_file.$__cell_side" &&
  __cell_was=${__cell_code%%$'\n'*} && __cell_was=${__cell_was#: } &&
  { [[ $__cell_was != /?* || $__cell_was == "$__cell_folder" ]] ||
    __cell_code=${__cell_code//"$__cell_was"/"$__cell_folder"}; } &&
  builtin eval "$__cell_code";
} </dev/null >/dev/null 2>&1;
{ builtin set +euvxn; } 2>/dev/null;
__cell_id= __cell_marker=cell __cell_status=0;
: "${__cell_guest_trap=}";
exec 58>&1 59>&2;
builtin trap '' INT;
builtin printf 'ready\n' >&57;

# `break` and `continue` of a cell, with most counts, end in the `for` or in the condition: the report comes all the same.
# -e, -u, -v, -x and the traps of DEBUG and SIGINT hold for the cell that sets them.
while
  { __cell_status=$?; builtin trap - DEBUG; builtin trap '' INT; builtin set +euvx; } >/dev/null 2>&1;
  if [[ -n $__cell_id ]];
  then
    builtin printf 'done %s %s\n' "$__cell_id" "$__cell_status" >&57;
    __cell_id= __cell_trap=;
    {
      { builtin trap -p EXIT; builtin printf "\0"; } 1<>"$__cell_file.trap" &&
      IFS= builtin read -r -d '' __cell_trap <"$__cell_file.trap" &&
      builtin eval "__cell_trap=($__cell_trap)" &&
      [[ ${__cell_trap[2]} == '\builtin eval "$__cell_bye"' ]] || __cell_guest_trap=${__cell_trap[2]};
      builtin eval "$__cell_save";
    } 2>/dev/null;
  fi;
  IFS=' ' builtin read -r -u 57 __cell_id __cell_number __cell_size || { builtin trap - EXIT; builtin exit; };
do
  LC_ALL=C builtin read -r -N "$__cell_size" -u 57 __cell_code;
  BASH_ARGV0="cell $__cell_number";
  builtin trap '\builtin eval "$__cell_bye"' EXIT;
  builtin trap '\builtin exit 130' INT;
  for __cell_turn in 1;
  do
    builtin eval "$__cell_code";
  done </dev/null >&58 2>&59 57>&- 58>&- 59>&-;
done;

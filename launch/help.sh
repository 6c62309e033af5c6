# Prints a script's first comment where --help is among its arguments, and ends.
# Usage: . "$(dirname "${BASH_SOURCE[0]}")/help.sh"     right after that comment.
for argument in "$@"; do
  if [ "$argument" = --help ]; then
    sed -n '2,${/^#/!q;s/^# \{0,1\}//p;}' "$0"
    exit
  fi
done

escaped() { echo "ESC""APED $*"; }

escaped() { echo "ESC""APED $*"; }
held() { echo "HE""LD $*"; }

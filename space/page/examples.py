"""Examples that run as they are, one after the other or alone."""

from __future__ import annotations

from executor.results import Language

EXAMPLES: tuple[tuple[str, Language, str], ...] = (
    (
        "A plot",
        "python",
        """t = np.linspace(0, 4 * np.pi, 600)
plt.plot(t, np.sin(t) * np.exp(-t / 8), label="damped")
plt.plot(t, np.cos(t), alpha=0.5, label="cosine")
plt.xlabel("seconds")
plt.title("Two waves")
plt.legend()""",
    ),
    (
        "A table",
        "python",
        """df = pd.DataFrame({
    "city": ["Oslo", "Rome", "Cairo", "Lima"],
    "degrees": [6, 16, 22, 19],
    "rain": [763, 799, 25, 16],
})
df.sort_values("degrees")""",
    ),
    (
        "A file to download",
        "python",
        """frame = pd.DataFrame({"n": range(1, 11)})
frame["square"] = frame["n"] ** 2
frame.to_csv("squares.csv", index=False)
print(open("squares.csv").read())""",
    ),
    (
        "Output as it comes",
        "python",
        """import time

for step in range(1, 6):
    print(f"step {step} of 5")
    time.sleep(0.4)""",
    ),
    (
        "JavaScript",
        "javascript",
        """const words = "the quick brown fox jumps over the lazy dog".split(" ");
const byLength = Object.groupBy(words, (word) => word.length);
console.log(await Promise.resolve("top-level await works"));
byLength""",
    ),
    (
        "bash",
        "bash",
        """for n in 1 2 3; do echo "line $n" >> notes.txt; done
wc -l notes.txt
sort -r notes.txt | head -n 2""",
    ),
)
"""(title, language, code)."""

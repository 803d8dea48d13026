"""Where the single executable starts: puts its process in order, then is `dispy_all`."""

from dispy.system import frozen

if __name__ == "__main__":
    frozen.begin()
    import dispy_all

    dispy_all.main()
